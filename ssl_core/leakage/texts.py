"""Texts and protein chains: shares of common shingles, found by MinHash.

MinHash: Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900; in bands: Leskovec, Rajaraman and Ullman, chapter 3,
http://www.mmds.org; what it finds in training sets of language models: Lee et al. 2022, https://arxiv.org/abs/2107.06499.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ssl_core.data import duplicates
from ssl_core.leakage.base import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BAND = 4
_FEW = 3
"""A text of fewer letters or digits, or a chain of fewer kinds of residues, says nothing."""


class _Shingles(Kind):
    """64 MinHash values of a row's shingles; pairs are then judged by all of their shingles."""

    width = 4 * duplicates.BINS
    column: ClassVar[str]
    shingle: ClassVar[int]

    def _letters(self, content: Mapping[str, Any]) -> bytes:
        """The letters that count, from the beginning and no more than are sketched."""
        return str(content[self.column]).encode()[: duplicates.SKETCHED_BYTES]

    def bands(self, table: NDArray[np.uint8]) -> Iterator[NDArray[np.uint64]]:
        import numpy as np

        values = np.ascontiguousarray(table).view(np.uint32)
        for start in range(0, duplicates.BINS, _BAND):
            keys = np.zeros(len(values), dtype=np.uint64)
            for value in values[:, start : start + _BAND].T:
                keys = keys * np.uint64(0x100000001B3) + value.astype(np.uint64)
            yield keys

    def estimate(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
        import numpy as np

        same = np.ascontiguousarray(one).view(np.uint32) == np.ascontiguousarray(other).view(np.uint32)
        return np.asarray(same.mean(axis=1), dtype=np.float32)

    def similarity(self, one: Mapping[str, Any], other: Mapping[str, Any], estimate: float) -> float:
        first, second = self._shingles(one), self._shingles(other)
        return len(first & second) / max(1, len(first | second))

    def _shingles(self, content: Mapping[str, Any]) -> set[bytes]:
        letters = self._letters(content).ljust(self.shingle)
        return {letters[at : at + self.shingle] for at in range(len(letters) - self.shingle + 1)}


class Texts(_Shingles):
    """Shingles of eight bytes, case and white space aside, of the first 4 KB: a word changed in twenty leaves 0.8."""

    column = "text"
    shingle = 8
    least = 0.7
    hopeful = 0.5

    def sketch(self, content: Mapping[str, Any]) -> tuple[NDArray[np.uint8], bool]:
        import numpy as np

        text = str(content["text"])
        seen = {letter for letter in text if letter.isalnum()}
        return duplicates.text_sketch(text.encode()).view(np.uint8), len(seen) < _FEW

    def _letters(self, content: Mapping[str, Any]) -> bytes:
        return b" ".join(super()._letters(content).lower().split())


class Chains(_Shingles):
    """Stretches of five residues: of two chains that agree in 19 of 20 residues, six in ten are common."""

    column = "protein"
    shingle = 5
    least = duplicates.SIMILAR_CHAINS
    hopeful = 0.4

    def sketch(self, content: Mapping[str, Any]) -> tuple[NDArray[np.uint8], bool]:
        import numpy as np

        chain = str(content["protein"])
        return duplicates.residue_sketch(chain.encode()).view(np.uint8), len(set(chain) - {"X"}) < _FEW
