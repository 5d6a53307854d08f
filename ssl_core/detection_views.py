"""Changes of pictures that their boxes go along with, drawn from the samples' seeds alone. Needs torch.

B pictures of S pixels a side, L objects of each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_core import augment
from ssl_core.rng import uniform

_STREAM = 301
_KEPT = 0.4
"""An object of which a cut leaves less than this share of its area is not there any more."""


class Change(NamedTuple):
    """What may happen to a picture: mirrored left to right and top to bottom, cut to at least this share of a side,
    made brighter or of more contrast by up to this share."""

    mirror: bool
    turn: bool
    least_cut: float
    colour: float


def in_pixels(boxes: Tensor, pictures: Tensor) -> Tensor:
    """(B, L, 4) from shares of the picture."""
    return boxes * pictures.shape[-1]


def changed(
    pictures: Tensor, boxes: Tensor, kinds: Tensor, seeds: Tensor, change: Change
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (B, C, S, S), boxes (B, L, 4) as shares, and kinds (B, L), -1 where an object was cut away."""
    draws, side = uniform(seeds, 8, _STREAM).to(pictures.dtype), pictures.shape[-1]
    length = change.least_cut + (1 - change.least_cut) * draws[:, 0]
    length = torch.where(draws[:, 1] < 0.5, length, 1.0)  # half of the pictures stay whole
    top, left = draws[:, 2] * (1 - length), draws[:, 3] * (1 - length)
    across = (draws[:, 4] < 0.5) & change.mirror
    down = (draws[:, 5] < 0.5) & change.turn
    rows = augment.resize_matrix(top, length, side, side, down)
    columns = augment.resize_matrix(left, length, side, side, across)
    moved = augment.resample(pictures, rows, columns)
    factor = (1 + change.colour * (2 * draws[:, 6:8] - 1))[:, :, None, None, None]
    # Of values that are normalised already: contrast about their mean, then brightness.
    middle = moved.mean(dim=(1, 2, 3), keepdim=True)
    moved = (moved - middle) * factor[:, 0] + middle + (factor[:, 1] - 1)
    return moved, *_along(boxes, kinds, (left, top, length), (across, down))


def _along(
    boxes: Tensor, kinds: Tensor, cut: tuple[Tensor, Tensor, Tensor], mirrored: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    left, top, length = (each[:, None] for each in cut)
    across, down = (each[:, None] for each in mirrored)
    x1, x2 = (boxes[..., 0] - left) / length, (boxes[..., 2] - left) / length
    y1, y2 = (boxes[..., 1] - top) / length, (boxes[..., 3] - top) / length
    x1, x2 = torch.where(across, 1 - x2, x1), torch.where(across, 1 - x1, x2)
    y1, y2 = torch.where(down, 1 - y2, y1), torch.where(down, 1 - y1, y2)
    whole = (x2 - x1) * (y2 - y1)
    inside = torch.stack([x1, y1, x2, y2], dim=-1).clamp(0, 1)
    left_over = (inside[..., 2] - inside[..., 0]) * (inside[..., 3] - inside[..., 1])
    seen = (kinds >= 0) & (left_over >= _KEPT * whole) & (left_over > 0)
    return torch.where(seen[..., None], inside, torch.nan), torch.where(seen, kinds, -1)
