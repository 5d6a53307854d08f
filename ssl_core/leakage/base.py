"""The base of every way to compare rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Kind(ABC):
    """How rows of one modality are compared.

    Attributes:
        version: to be raised when the sketch changes, so that kept signatures are made anew.
        width: bytes of a sketch.
        least: similarity from which two rows are near duplicates.
        hopeful: estimate from sketches from which a pair is worth `similarity`.
    """

    version: ClassVar[int] = 1
    width: ClassVar[int]
    least: ClassVar[float]
    hopeful: ClassVar[float]

    @abstractmethod
    def sketch(self, content: Mapping[str, Any]) -> tuple[NDArray[np.uint8], bool]:
        """(width,) of a row's content, and whether there is nothing in it: empty, silent, of one value only."""

    @abstractmethod
    def bands(self, table: NDArray[np.uint8]) -> Iterator[NDArray[np.uint64]]:
        """(n,) keys of (n, width) sketches, several times: similar rows agree in one of them at least."""

    @abstractmethod
    def estimate(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(pairs,) similarity in 0..1 of two tables of (pairs, width) sketches."""

    def bar(self, table: NDArray[np.uint8]) -> float:
        """The similarity asked for among (n, width) sketches of one dataset: `least`, or more where all are alike."""
        return self.least

    def similarity(self, one: Mapping[str, Any], other: Mapping[str, Any], estimate: float) -> float:
        """The similarity of two contents, where sketches only estimate it."""
        return estimate
