"""Which samples train and which are held out: pure functions of the seed. Imports without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
_LEAST = 2
"""Examples of a class on either side of a stratified split; with fewer a score would be noise."""


def held_out(count: int, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """(train, held out), both sorted; nothing is held out of fewer than 10 samples."""
    order = np.random.Generator(np.random.Philox(key=[seed, 2])).permutation(count)
    size = min(4096, round(count * fraction)) if count >= 10 else 0
    return np.sort(order[size:]), np.sort(order[:size])


def stratified(labels: NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """(train, validation) of the labelled samples, `fraction` of each class held out.

    Validation is empty where a class would be left with fewer than two examples on either side.

    Args:
        labels: (N,) class of each sample; -1 = none.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 3]))
    train, validation = [], []
    for label in np.unique(labels[labels >= 0]):
        members = generator.permutation(np.flatnonzero(labels == label))
        size = round(len(members) * fraction)
        if min(size, len(members) - size) < _LEAST:
            return np.flatnonzero(labels >= 0), np.empty(0, dtype=np.int64)
        validation.append(members[:size])
        train.append(members[size:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(validation))


def drawn(groups: Indices, count: int | None, seed: int) -> Indices:
    """`count` rows of each group, sorted; all where it is None or a group has no more.

    The rows of a smaller count are among those of a larger one with the same seed.

    Args:
        groups: (N,) the group of each row, such as its class; -1 = not to be drawn.
    """
    if count is None:
        return np.flatnonzero(groups >= 0)
    generator = np.random.Generator(np.random.Philox(key=[seed, 4]))
    # One shuffle of all rows: a group's draw does not depend on which other groups there are.
    order = generator.permutation(len(groups))
    chosen = [order[groups[order] == group][:count] for group in np.unique(groups[groups >= 0])]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)
