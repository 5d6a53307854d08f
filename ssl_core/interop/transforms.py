"""From their tensors to one of ours and back, bit by bit. Imports without torch.

Each holds: `ours(theirs(x))` is x in every bit, so an import of an export is what was exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Transform(Protocol):
    """There and back; a file of a family may have its own. Frozen values, so that rows can be compared."""

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """Our tensor of the row's `theirs`, in their order. May raise RuntimeError where shapes do not fit."""

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """The row's `theirs` of our tensor."""


@dataclass(frozen=True)
class Same:
    """One tensor, as it is."""

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `Transform`."""
        return theirs[0]

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        return [ours]


@dataclass(frozen=True)
class Count(Same):
    """A whole number, such as the batches that a norm has seen: it is written as one."""

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        return [ours.long()]


@dataclass(frozen=True)
class Transposed:
    """(in, out) of theirs is (out, in) of ours: GPT-2's `Conv1D`. A vector stays as it is."""

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `Transform`."""
        return theirs[0].T.contiguous() if theirs[0].ndim == 2 else theirs[0]

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        return [ours.T.contiguous() if ours.ndim == 2 else ours]


@dataclass(frozen=True)
class Stacked:
    """Several of theirs below each other, such as queries, keys and values.

    Attributes:
        sizes: rows of each.
    """

    sizes: tuple[int, ...]

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `Transform`."""
        import torch

        found = tuple(len(part) for part in theirs)
        if found != self.sizes:
            raise RuntimeError(f"parts have {found} rows instead of {self.sizes}")
        return torch.cat(theirs)

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        import torch

        return [part.contiguous() for part in torch.split(ours, list(self.sizes))]


@dataclass(frozen=True)
class Reshaped:
    """The same numbers in another shape: a convolution over whole patches is a matrix.

    Attributes:
        mine, other: our shape and theirs.
    """

    mine: tuple[int, ...]
    other: tuple[int, ...]

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `Transform`."""
        if tuple(theirs[0].shape) != self.other:
            raise RuntimeError(f"its shape is {tuple(theirs[0].shape)} instead of {self.other}")
        return theirs[0].reshape(self.mine).contiguous()

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        return [ours.reshape(self.other).contiguous()]


@dataclass(frozen=True)
class Positions:
    """A position table whose first rows nobody uses, and to which a type embedding is added for every token.

    Theirs are the table and, where `types` is not 0, the types; type 0 is what every token of ours has, and is folded
    into the table. What an export writes for the types is -0.0: the one number that changes no bit of what it is
    added to.

    Attributes:
        skip: rows in front that stand for padding (RoBERTa: 2).
        types: rows of the type table; 0 = there is none.
    """

    skip: int = 0
    types: int = 0

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `Transform`."""
        table = theirs[0][self.skip :]
        return table + theirs[1][0] if self.types else table.contiguous()

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        import torch

        table = torch.cat([ours.new_zeros(self.skip, ours.shape[1]), ours]) if self.skip else ours
        return [table, ours.new_full((self.types, ours.shape[1]), -0.0)] if self.types else [table]


SAME = Same()
COUNT = Count()
TRANSPOSED = Transposed()
