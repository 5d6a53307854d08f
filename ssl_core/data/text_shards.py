"""Prepared text: a tokenizer, and what `ssl_core.data.token_shards` holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import captions, rows, token_shards, tokenizer
from ssl_core.targets import TARGETS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ssl_core.modalities.text import TextModality

ENCODE_CHARACTERS = 2_000_000
"""Text in memory at once while encoding: an encoding takes some fifty bytes a character."""


def prepare(
    settings: TextModality,
    dataset: Path,
    out: Path,
    given: Path | None,
    progress: Callable[[int, int], None],
    frame: captions.Frame | None = None,
) -> None:
    """Write `tokenizer.json` and the files of `token_shards.write` to `out`; `frame` is for texts of pairs.

    Raises:
        DataError: `empty_dataset`.
        SpecError: `invalid_tokenizer`, where a given one is not usable.
    """
    rows.profile(dataset)  # a folder that is none is named before anything is made
    out.mkdir(parents=True, exist_ok=True)
    if given is None:
        columns = ["text", *(name for name in rows.profile(dataset).get("targets", {}) if TARGETS[name].is_text)]
        batches = rows.batches(dataset, columns)
        texts = (text for batch in batches for name in columns for text in batch[name] if text is not None)
        trained = tokenizer.train(texts, settings.tokenizer, settings.vocab_size, settings.lowercase)
        if frame is not None and frame.special:
            captions.framed(trained)
        trained.save(str(out / "tokenizer.json"))
    else:
        shutil.copyfile(given, out / "tokenizer.json")
    codec = tokenizer.load(out / "tokenizer.json")
    starts = tokenizer.word_starts(codec)
    vocabulary = token_shards.Vocabulary("text", facts(codec, settings.max_length), starts)
    groups, framed = _slices(dataset), settings.special_tokens
    encoded = (
        tokenizer.encode(codec, group, framed) if frame is None else captions.encode(codec, group, frame)
        for group in groups
    )
    token_shards.write(dataset, out, encoded, vocabulary, progress)


def facts(codec: Tokenizer, max_length: int) -> dict[str, Any]:
    """What a text encoder must know: its vocabulary's size, the ids of special entries, `max_length`."""
    return {"vocab_size": tokenizer.size(codec), "max_length": max_length, **tokenizer.specials(codec)}


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
