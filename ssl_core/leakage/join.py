"""The rows of one dataset that another one has too: candidates share a band of their sketches and are then judged.

The cost is that of sorting both sides once a band; a held-out row meets at most `MOST` others in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ssl_core.leakage.signatures import Signatures, contents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.leakage.base import Kind

MOST = 128
_AT_ONCE = 1 << 15
_JUDGED = 4
"""Candidates of a row whose contents are compared, the most hopeful first."""


@dataclass(frozen=True)
class Pair:
    """Row `held` is row `known` of the other dataset: exactly (similarity 1), or nearly."""

    held: int
    known: int
    similarity: float
    exact: bool


def pairs(held: Signatures, known: Signatures) -> list[Pair]:
    """For each row of `held` that `known` has too the most similar one, in order.

    A dataset may be joined with itself: a row is then paired with an earlier one only.
    """
    found = {pair.held: pair for pair in _exact(held, known)}
    if held.kind is not None:
        for pair in _near(held.kind, held, known, set(found)):
            best = found.get(pair.held)
            if best is None or best.similarity < pair.similarity:
                found[pair.held] = pair
    return [found[row] for row in sorted(found)]


def _exact(held: Signatures, known: Signatures) -> Iterator[Pair]:
    for rows, others in _meetings(held.exact, known.exact, 1):
        for row, other in zip(rows.tolist(), others.tolist(), strict=True):
            if held is not known or other < row:
                yield Pair(row, other, 1.0, True)


def _near(kind: Kind, held: Signatures, known: Signatures, done: set[int]) -> Iterator[Pair]:
    import numpy as np

    # Two empty rows are alike and yet tell nothing; a row that is found exactly needs no other.
    closed = np.array(held.flat)
    closed[list(done)] = True
    hopeful: dict[int, dict[int, float]] = {}
    for mine, theirs in zip(kind.bands(held.sketches), kind.bands(known.sketches), strict=True):
        for rows, others in _meetings(mine, theirs, MOST):
            wanted = ~(closed[rows] | known.flat[others])
            if held is known:
                wanted &= others < rows
            rows, others = rows[wanted], others[wanted]
            estimates = kind.estimate(held.sketches[rows], known.sketches[others])
            for at in np.flatnonzero(estimates >= kind.hopeful).tolist():
                hopeful.setdefault(int(rows[at]), {})[int(others[at])] = float(estimates[at])
    best = {row: sorted(some.items(), key=lambda item: -item[1])[:_JUDGED] for row, some in hopeful.items()}
    yield from _judged(kind, held, known, best)


def _judged(
    kind: Kind, held: Signatures, known: Signatures, hopeful: dict[int, list[tuple[int, float]]]
) -> Iterator[Pair]:
    """Pairs that are near duplicates by their contents."""
    mine = contents(held.dataset, set(hopeful))
    theirs: dict[int, Any] = contents(known.dataset, {other for some in hopeful.values() for other, _ in some})
    bar = kind.bar(known.sketches) if hopeful else kind.least
    for row, some in hopeful.items():
        for other, estimate in some:
            similarity = kind.similarity(mine[row], theirs[other], estimate)
            if similarity >= bar:
                yield Pair(row, other, round(similarity, 4), False)


def _meetings(
    mine: NDArray[Any], theirs: NDArray[Any], most: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs (row, other) of equal keys, at most `most` for each row: its first ones."""
    import numpy as np

    order = np.argsort(theirs, kind="stable")
    keys = theirs[order]
    for start in range(0, len(mine), _AT_ONCE):
        asked = mine[start : start + _AT_ONCE]
        first = np.searchsorted(keys, asked, side="left")
        count = np.minimum(np.searchsorted(keys, asked, side="right") - first, most)
        for low, high in _cuts(count):
            counts = count[low:high]
            rows = np.repeat(np.arange(low, high), counts)
            within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            yield start + rows, order[np.repeat(first[low:high], counts) + within]


def _cuts(counts: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that have no more than about `_AT_ONCE` pairs together."""
    import numpy as np

    groups = np.cumsum(counts) // _AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(counts)]
    yield from pairwise(edges)
