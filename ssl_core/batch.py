"""What flows through one step. Needs torch.

Shapes: B samples, T token slots in a row, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.targets.base import TARGET


@dataclass(frozen=True)
class Tokens:
    """Rows of tokens; a row may hold several documents (packing), which never see each other.

    Attributes:
        ids: (B, T) int64 token ids.
        segments: (B, T) int32 number of the document inside its row, from 0; -1 marks padding.
        positions: (B, T) int64 position inside the document, from 0.
        word_starts: (B, T) bool, True where a word begins (whole-word masking); None where nobody asked.
    """

    ids: Tensor
    segments: Tensor
    positions: Tensor
    word_starts: Tensor | None = None


@dataclass(frozen=True)
class Pairs:
    """Samples of a picture and a text each; of some that are only served, one of the two.

    Attributes:
        image: (M, C, H, W) float, normalised; None where no sample has a picture.
        text: N rows, one document in each; None where no text is needed.
        pictured: (B,) bool, which samples have a picture; the M pictures are theirs and the N texts the others', in
            order. None = every sample has both, M = N = B.
    """

    image: Tensor | None
    text: Tokens | None
    pictured: Tensor | None = None


# Images are a float tensor (B, C, H, W), normalised.
Inputs: TypeAlias = Tokens | Tensor | Pairs


@dataclass(frozen=True)
class Batch:
    """One step's samples: one `Inputs` for each name in the learner's `views`, in that order.

    Attributes:
        seeds: (B,) int64, a function of (run seed, step, sample): the only source of randomness of a view or mask,
            so a batch is the same whatever the loader, the device count or the moment of a resume.
        labels: (B,) int64 class indices; None without labels.
        targets: what the task's target (`ssl_core.targets`) reads of the samples, first dimension B; of items that are
            served what the task asked to know of them (`Task.served`).
    """

    views: tuple[Inputs, ...]
    seeds: Tensor
    labels: Tensor | None = None
    targets: Mapping[str, Tensor] = field(default_factory=dict)


def targets_of(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The targets among the raw tensors of a slice: those whose names begin with `TARGET`."""
    return {name.removeprefix(TARGET): tensor for name, tensor in raw.items() if name.startswith(TARGET)}


def one_text(views: tuple[Inputs, ...]) -> Tokens:
    """The only view, which is text. Raises TypeError otherwise."""
    if len(views) != 1 or not isinstance(views[0], Tokens):
        raise TypeError("one view of text is needed")
    return views[0]


def one_pair(views: tuple[Inputs, ...]) -> tuple[Tensor, Tokens]:
    """The only view's pictures (B, C, H, W) and texts (B, T). Raises TypeError where samples do not have both."""
    view = views[0]
    if (
        len(views) != 1
        or not isinstance(view, Pairs)
        or view.image is None
        or view.text is None
        or view.pictured is not None
    ):
        raise TypeError("one view of pictures with texts is needed")
    return view.image, view.text


def stacked(views: tuple[Inputs, ...]) -> Tensor:
    """Pictures of several views below each other, (B1 + B2 + ..., C, H, W). Raises TypeError for text."""
    pictures = [view for view in views if isinstance(view, Tensor)]
    if len(pictures) != len(views):
        raise TypeError("these views are not pictures")
    return torch.cat(pictures)


def joined(views: tuple[Inputs, ...]) -> Tokens:
    """The rows of several views of text below each other, (B1 + B2 + ..., T); shorter ones are padded to the longest.

    Raises:
        TypeError: a view is not `Tokens`.
    """
    rows = [view for view in views if isinstance(view, Tokens)]
    if len(rows) != len(views):
        raise TypeError("these views are not text")
    longest = max(view.ids.shape[1] for view in rows)

    def stack(tensors: list[Tensor], value: int) -> Tensor:
        return torch.cat([F.pad(tensor, (0, longest - tensor.shape[1]), value=value) for tensor in tensors])

    starts = [view.word_starts for view in rows if view.word_starts is not None]
    return Tokens(
        stack([view.ids for view in rows], 0),
        stack([view.segments for view in rows], -1),
        stack([view.positions for view in rows], 0),
        stack(starts, False) if len(starts) == len(rows) else None,
    )
