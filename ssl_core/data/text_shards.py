"""Prepared text: a tokenizer, and what `ssl_core.data.token_shards` holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import rows, token_shards, tokenizer

if TYPE_CHECKING:
    from ssl_core.modalities.text import TextModality

ENCODE_CHARACTERS = 2_000_000
"""Text in memory at once while encoding: an encoding takes some fifty bytes a character."""


def prepare(
    settings: TextModality, dataset: Path, out: Path, given: Path | None, progress: Callable[[int, int], None]
) -> None:
    """Write `tokenizer.json` and the files of `token_shards.write` to `out`.

    Raises:
        DataError: `empty_dataset`.
        SpecError: `invalid_tokenizer`, where a given one is not usable.
    """
    rows.profile(dataset)  # a folder that is none is named before anything is made
    out.mkdir(parents=True, exist_ok=True)
    if given is None:
        texts = (text for batch in rows.batches(dataset, ["text"]) for text in batch["text"])
        trained = tokenizer.train(texts, settings.tokenizer, settings.vocab_size, settings.lowercase)
        trained.save(str(out / "tokenizer.json"))
    else:
        shutil.copyfile(given, out / "tokenizer.json")
    codec = tokenizer.load(out / "tokenizer.json")
    known = facts(codec.get_vocab_size(), settings.max_length)
    vocabulary = token_shards.Vocabulary("text", known, tokenizer.word_starts(codec))
    token_shards.write(
        dataset, out, (tokenizer.encode(codec, group) for group in _slices(dataset)), vocabulary, progress
    )


def facts(vocab_size: int, max_length: int) -> dict[str, Any]:
    """What a text encoder must know."""
    return {
        "vocab_size": vocab_size, "max_length": max_length, "pad_id": tokenizer.PAD, "unk_id": tokenizer.UNK,
        "cls_id": tokenizer.CLS, "sep_id": tokenizer.SEP, "mask_id": tokenizer.MASK,
    }  # fmt: skip


def _slices(dataset: Path) -> Iterator[list[str]]:
    """Texts in groups of at most about `ENCODE_CHARACTERS` characters."""
    group: list[str] = []
    size = 0
    for batch in rows.batches(dataset, ["text"]):
        for text in batch["text"]:
            group.append(text)
            size += len(text)
            if size >= ENCODE_CHARACTERS:
                yield group
                group, size = [], 0
    if group:
        yield group
