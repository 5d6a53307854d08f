"""Objects found in feature maps: what a detector learns by, and which of its answers are kept. Needs torch.

FCOS assigns objects to places (Tian et al. 2019, https://arxiv.org/abs/1904.01355). Focal loss: Lin et al. 2017,
https://arxiv.org/abs/1708.02002. Overlap of boxes as a loss: Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630.
The network is `ssl_core.detector`.

B pictures, L objects of each (filled up behind), P places of all maps together, C classes, K answers, S pixels a side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core import distributed
from ssl_core.detector import Found, boxes_of, scores_of

ALPHA, GAMMA = 0.25, 2.0
REACH = 8.0
"""A map of stride s holds objects that reach up to 8 s, FCOS's 64 pixels at stride 8."""
RADIUS = 1.5
"""Places within so many strides of an object's middle learn it, as in the journal version of FCOS."""


class Assigned(NamedTuple):
    """What each place is to learn.

    Attributes:
        kinds: (B, P) int64 class, -1 for background.
        boxes: (B, P, 4) x1, y1, x2, y2 of its object in pixels; 0 for background.
        middles: (B, P) nearness to the middle, 0 to 1.
    """

    kinds: Tensor
    boxes: Tensor
    middles: Tensor


@torch.no_grad()
def assign(boxes: Tensor, kinds: Tensor, places: Tensor, strides: Tensor) -> Assigned:
    """Each place learns the smallest object that it lies in, near the middle of, and that its map is for.

    Args:
        boxes: (B, L, 4) x1, y1, x2, y2 in pixels; what is filled up is anything.
        kinds: (B, L) -1 = filled up.
        places, strides: as in `Found`.
    """
    real, boxes = kinds >= 0, boxes.nan_to_num(0.0)
    if boxes.shape[1] == 0:
        none = torch.full((len(boxes), len(places)), -1, device=places.device)
        return Assigned(none, boxes.new_zeros(*none.shape, 4), boxes.new_zeros(none.shape))
    x, y = places[None, :, None, 0], places[None, :, None, 1]
    left, top, right, bottom = (boxes[:, None, :, side] for side in range(4))
    reach = torch.stack([x - left, y - top, right - x, bottom - y], dim=-1)
    near = RADIUS * strides[None, :, None]
    off = torch.stack([x - (left + right) / 2, y - (top + bottom) / 2], dim=-1).abs().amax(-1)
    furthest, coarsest = reach.amax(-1), strides.max()
    least = torch.where(strides > strides.min(), REACH / 2 * strides, 0.0)[None, :, None]
    most = torch.where(strides < coarsest, REACH * strides, torch.inf)[None, :, None]
    mine = real[:, None] & (reach.amin(-1) > 0) & (off < near) & (furthest > least) & (furthest <= most)
    area = ((right - left) * (bottom - top)).expand_as(furthest).masked_fill(~mine, torch.inf)
    smallest, which = area.min(2)
    found = torch.where(smallest < torch.inf, kinds.gather(1, which), -1)
    chosen = boxes.gather(1, which[..., None].expand(-1, -1, 4))
    sides = reach.gather(2, which[:, :, None, None].expand(-1, -1, 1, 4)).squeeze(2).clamp_min(1e-6)
    across, down = sides[..., 0::2], sides[..., 1::2]
    middle = (across.amin(-1) / across.amax(-1) * down.amin(-1) / down.amax(-1)).sqrt()
    return Assigned(found, chosen * (found >= 0)[..., None], middle * (found >= 0))


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Of each yes or no: -a (1 - p)^2 log p with p the probability of the truth, a 0.25 for yes and 0.75 for no."""
    plain = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = torch.where(truth > 0, 1 - logits.sigmoid(), logits.sigmoid())
    return torch.where(truth > 0, ALPHA, 1 - ALPHA) * wrong**GAMMA * plain


def overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and its generalised form, of boxes (..., 4) x1, y1, x2, y2 that are broadcast."""
    wide = (torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])).clamp_min(0)
    high = (torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])).clamp_min(0)
    inside = wide * high
    union = area_of(first) + area_of(second) - inside
    hull_wide = torch.maximum(first[..., 2], second[..., 2]) - torch.minimum(first[..., 0], second[..., 0])
    hull_high = torch.maximum(first[..., 3], second[..., 3]) - torch.minimum(first[..., 1], second[..., 1])
    hull = (hull_wide * hull_high).clamp_min(1e-9)
    shared = inside / union.clamp_min(1e-9)
    return shared, shared - (hull - union) / hull


def area_of(boxes: Tensor) -> Tensor:
    """(...) of (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def losses(found: Found, wanted: Assigned) -> dict[str, Tensor]:
    """`loss`, the sum of its parts `class_loss`, `box_loss` and `middle_loss`, each by the objects' places of all
    processes."""
    positive = wanted.kinds >= 0
    truth = F.one_hot(wanted.kinds.clamp_min(0), found.logits.shape[2]) * positive[..., None]
    count = distributed.mean(positive.sum().float()).clamp_min(1.0)
    weight = wanted.middles * positive
    total = distributed.mean(weight.sum()).clamp_min(1e-6)
    _, general = overlap(boxes_of(found), wanted.boxes)
    near = F.binary_cross_entropy_with_logits(found.middles, wanted.middles, reduction="none")
    parts = {
        "class_loss": focal_loss(found.logits, truth.float()).sum() / count,
        "box_loss": ((1 - general) * weight).sum() / total,
        "middle_loss": (near * positive).sum() / count,
    }
    told = {name: part.detach() for name, part in parts.items()}
    return {"loss": parts["class_loss"] + parts["box_loss"] + parts["middle_loss"], **told}


class Kept(NamedTuple):
    """The best answers, surest first, filled up behind.

    Attributes:
        boxes: (B, K, 4) x1, y1, x2, y2 in pixels, NaN behind.
        scores: (B, K), NaN behind.
        kinds: (B, K) int64, -1 behind.
    """

    boxes: Tensor
    scores: Tensor
    kinds: Tensor


@torch.no_grad()
def best(found: Found, side: int, settings: tuple[int, float, float]) -> Kept:
    """Answers after suppression, class by class, cut to the picture.

    Args:
        found: of the detector.
        side: S.
        settings: K; least score; most overlap of two answers of one class.
    """
    most, least, shared = settings
    scores = scores_of(found)
    boxes = boxes_of(found).clamp(0, side)
    rows = [_suppressed(*pair, (most, least, shared)) for pair in zip(boxes, scores, strict=True)]
    longest = max(1, *(len(row[1]) for row in rows)) if rows else 1
    kept = Kept(
        boxes.new_full((len(rows), longest, 4), torch.nan), boxes.new_full((len(rows), longest), torch.nan),
        torch.full((len(rows), longest), -1, device=boxes.device),
    )  # fmt: skip
    for at, row in enumerate(rows):
        for whole, part in zip(kept, row, strict=True):
            whole[at, : len(part)] = part
    return kept


def _suppressed(boxes: Tensor, scores: Tensor, settings: tuple[int, float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Of one picture: (P, 4) boxes and (P, C) scores."""
    most, least, shared = settings
    places, kinds = (scores > least).nonzero(as_tuple=True)
    chosen = scores[places, kinds].topk(min(10 * most, len(places))).indices
    boxes, kinds, scores = boxes[places[chosen]], kinds[chosen], scores[places[chosen], kinds[chosen]]
    keep = suppress(boxes, kinds, shared)[:most]
    return boxes[keep], scores[keep], kinds[keep]


def suppress(boxes: Tensor, kinds: Tensor, shared: float) -> Tensor:
    """(n,) int64 numbers of the boxes (N, 4), surest first, that overlap none of their class before them by more."""
    clash = (overlap(boxes[:, None], boxes[None])[0] > shared) & (kinds[:, None] == kinds[None])
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for at in range(len(boxes)):
        if alive[at]:
            alive[at + 1 :] &= ~clash[at, at + 1 :]
    return alive.nonzero()[:, 0]
