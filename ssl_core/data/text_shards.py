"""Prepared text: one flat array of tokens, the offsets and labels of its documents, and which ids begin a word.

B samples, T = max_length token slots, L = longest document read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import rows, shards, tokenizer
from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Raw, Unit
    from ssl_core.modalities.text import TextModality

ENCODE_CHARACTERS = 2_000_000
"""Text in memory at once while encoding: an encoding takes some fifty bytes a character."""
WINDOW = 8
"""A document is read at most this many times `max_length` long; a longer one from a random start."""


def prepare(
    settings: TextModality, dataset: Path, out: Path, given: Path | None, progress: Callable[[int, int], None]
) -> None:
    """Write `tokenizer.json`, `tokens.bin`, `offsets.bin`, `labels.bin`, `word_starts.bin` and `meta.json` to `out`.

    Raises:
        DataError: `empty_dataset`.
        SpecError: `invalid_tokenizer`, where a given one is not usable.
    """
    import numpy as np

    measured = rows.profile(dataset)
    out.mkdir(parents=True, exist_ok=True)
    if given is None:
        texts = (text for batch in rows.batches(dataset, ["text"]) for text in batch["text"])
        trained = tokenizer.train(texts, settings.tokenizer, settings.vocab_size, settings.lowercase)
        trained.save(str(out / "tokenizer.json"))
    else:
        shutil.copyfile(given, out / "tokenizer.json")
    codec = tokenizer.load(out / "tokenizer.json")
    dtype = "uint16" if codec.get_vocab_size() <= 2**16 else "uint32"
    total, done = int(measured["rows"]), 0
    with (
        shards.ArrayWriter(out / "tokens.bin", dtype) as tokens,
        shards.ArrayWriter(out / "offsets.bin", "int64") as offsets,
    ):
        offsets.append(np.zeros(1, dtype=np.int64))
        for texts_slice in _slices(dataset):
            encoded = tokenizer.encode(codec, texts_slice)
            sizes = np.array([len(ids) for ids in encoded], dtype=np.int64)
            offsets.append(tokens.count + np.cumsum(sizes))
            tokens.append(np.concatenate([np.asarray(ids, dtype=dtype) for ids in encoded]))
            done += len(texts_slice)
            progress(done, total)
    if done == 0:
        raise DataError("empty_dataset", "the dataset has no rows")
    starts = tokenizer.word_starts(codec)
    with shards.ArrayWriter(out / "word_starts.bin", "bool") as writer:
        writer.append(starts)
    shards.write_labels(out, rows.labels(dataset, measured["classes"]))
    meta = {"modality": "text", "documents": done, "tokens": tokens.count, "dtype": dtype}
    known = {"classes": measured["classes"], "facts": facts(codec.get_vocab_size(), settings.max_length)}
    shards.write_meta(out, {**meta, **known})


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


class TextSource:
    """Prepared text, opened. Attributes as in `ssl_core.modalities.base.Source`.

    Attributes:
        tokens: how many the whole dataset has.
    """

    def __init__(self, prepared: Path, max_length: int) -> None:
        meta = shards.read_meta(prepared)
        self.facts: dict[str, Any] = meta["facts"]
        self.classes: list[str] = meta["classes"]
        self.tokens: int = meta["tokens"]
        documents: int = meta["documents"]
        self._length = max_length
        self._ids = shards.map_array(prepared / "tokens.bin", meta["dtype"], (self.tokens,))
        self._offsets: NDArray[np.int64] = shards.map_array(prepared / "offsets.bin", "int64", (documents + 1,))
        self._starts = shards.map_array(prepared / "word_starts.bin", "bool", (self.facts["vocab_size"],))
        self.labels = shards.map_labels(prepared, documents)

    def count(self, unit: Unit) -> int:
        """Rows of `max_length` tokens, the last one shorter; or documents."""
        return -(-self.tokens // self._length) if unit == "row" else len(self._offsets) - 1

    def lengths(self) -> NDArray[np.int64]:
        """(documents,) tokens of each, at most `max_length`."""
        import numpy as np

        return np.minimum(np.diff(self._offsets), self._length)

    def read(self, unit: Unit, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None = None) -> Raw:
        """Rows: `ids`, `segments`, `positions`, `word_starts`, each (B, T).

        Documents: `ids` and `word_starts` (B, L), `lengths` (B,), L at most `WINDOW` times `max_length`.
        """
        return self._read_rows(indices) if unit == "row" else self._read_documents(indices, seeds)

    def _read_rows(self, indices: NDArray[np.int64]) -> Raw:
        import numpy as np

        first = indices.astype(np.int64)[:, None] * self._length
        at = first + np.arange(self._length)
        real = at < self.tokens
        at = np.minimum(at, self.tokens - 1)
        document = np.searchsorted(self._offsets, at, side="right") - 1
        ids = np.where(real, self._ids[at], tokenizer.PAD).astype(np.int32)
        return {
            "ids": ids,
            "segments": np.where(real, document - document[:, :1], -1).astype(np.int32),
            "positions": np.where(real, at - np.maximum(self._offsets[document], first), 0),
            "word_starts": self._starts[ids],
        }

    def _read_documents(self, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None) -> Raw:
        import numpy as np

        begin, end = self._offsets[indices], self._offsets[indices + 1]
        window = WINDOW * self._length
        if seeds is not None:
            # A multiplicative hash of the seed is even enough to choose where a long document is opened.
            spread = (seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
            room = np.maximum(end - begin - window, 0)
            begin = begin + (spread.astype(np.float64) / 2**53 * (room + 1)).astype(np.int64)
        lengths = np.minimum(end - begin, window)
        at = begin[:, None] + np.arange(int(lengths.max(initial=1)))
        real = at < (begin + lengths)[:, None]
        ids = np.where(real, self._ids[np.minimum(at, self.tokens - 1)], tokenizer.PAD).astype(np.int32)
        return {"ids": ids, "word_starts": self._starts[ids], "lengths": lengths}
