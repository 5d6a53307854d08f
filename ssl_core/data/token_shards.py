"""Prepared sequences of tokens, whatever they spell: one flat array of ids, with the offsets and labels of documents.

B samples, T = max_length token slots, L = longest document read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import rows, shards
from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Raw, Unit

WINDOW = 8
"""A document is read at most this many times `max_length` long; a longer one from a random start."""


@dataclass(frozen=True)
class Vocabulary:
    """What the ids mean.

    Attributes:
        modality: whose they are.
        facts: what an encoder must know of them, `vocab_size`, `pad_id` and `max_length` among it.
        word_starts: (vocabulary,) True where a token begins a word.
    """

    modality: str
    facts: dict[str, Any]
    word_starts: NDArray[np.bool_]


def write(
    dataset: Path,
    out: Path,
    groups: Iterable[Sequence[Sequence[int] | NDArray[Any]]],
    vocabulary: Vocabulary,
    progress: Callable[[int, int], None],
) -> None:
    """Write `tokens.bin`, `offsets.bin`, `labels.bin`, `word_starts.bin` and `meta.json` to `out`.

    Args:
        dataset: canonical folder, for the labels.
        out: exists.
        groups: the ids of every row in file order, some rows at a time.
        vocabulary: of these ids.
        progress: rows done and rows in all.

    Raises:
        DataError: `empty_dataset`.
    """
    import numpy as np

    measured = rows.profile(dataset)
    dtype = "uint16" if vocabulary.facts["vocab_size"] <= 2**16 else "uint32"
    total, done = int(measured["rows"]), 0
    with (
        shards.ArrayWriter(out / "tokens.bin", dtype) as tokens,
        shards.ArrayWriter(out / "offsets.bin", "int64") as offsets,
    ):
        offsets.append(np.zeros(1, dtype=np.int64))
        for group in groups:
            sizes = np.array([len(ids) for ids in group], dtype=np.int64)
            offsets.append(tokens.count + np.cumsum(sizes))
            tokens.append(np.concatenate([np.asarray(ids, dtype=dtype) for ids in group]))
            done += len(group)
            progress(done, total)
    if done == 0:
        raise DataError("empty_dataset", "the dataset has no rows")
    with shards.ArrayWriter(out / "word_starts.bin", "bool") as writer:
        writer.append(vocabulary.word_starts)
    shards.write_labels(out, rows.labels(dataset, measured["classes"]))
    meta = {"modality": vocabulary.modality, "documents": done, "tokens": tokens.count, "dtype": dtype}
    shards.write_meta(out, {**meta, "classes": measured["classes"], "facts": vocabulary.facts})


class TokenSource:
    """Prepared sequences, opened. Attributes as in `ssl_core.modalities.base.Source`.

    Attributes:
        tokens: how many the whole dataset has.
    """

    def __init__(self, prepared: Path, max_length: int) -> None:
        meta = shards.read_meta(prepared)
        self.facts: dict[str, Any] = meta["facts"]
        self.classes: list[str] = meta["classes"]
        self.tokens: int = meta["tokens"]
        self._pad: int = self.facts["pad_id"]
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
        ids = np.where(real, self._ids[at], self._pad).astype(np.int32)
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
        ids = np.where(real, self._ids[np.minimum(at, self.tokens - 1)], self._pad).astype(np.int32)
        return {"ids": ids, "word_starts": self._starts[ids], "lengths": lengths}
