"""Objects found in feature maps: a one-stage detector without anchors, and what it learns by. Needs torch.

FCOS (Tian et al. 2019, "FCOS: Fully convolutional one-stage object detection", https://arxiv.org/abs/1904.01355): every
place of every map tells the classes of the object that it lies in, how far that object reaches to the left, top, right
and bottom, and how near it is to its middle. Focal loss: Lin et al. 2017, https://arxiv.org/abs/1708.02002. Overlap of
boxes as a loss: Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630. The pyramid: Lin et al. 2017,
https://arxiv.org/abs/1612.03144; of a plain ViT, whose one map is coarse, with transposed convolutions in front: Li et
al. 2022, "Exploring plain vision transformer backbones for object detection", https://arxiv.org/abs/2203.16527.

B pictures, L objects of each (filled up behind), P places of all maps together, C classes, K answers, S pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core import distributed
from ssl_core.encoders.base import Encoder
from ssl_core.nets import Nets

LEVELS = 3
LEAST_STRIDE = 8
PRIOR = 0.01
"""How likely a place is to hold an object before anything is learned: else the many empty places swamp the start."""
ALPHA, GAMMA = 0.25, 2.0
REACH = 8.0
"""A map of stride s holds objects that reach up to 8 s, FCOS's 64 pixels at stride 8."""
RADIUS = 1.5
"""Places within so many strides of an object's middle learn it, as in the journal version of FCOS."""


class Found(NamedTuple):
    """What a detector tells of P places.

    Attributes:
        logits: (B, P, C) of classes.
        reaches: (B, P, 4) pixels to the left, top, right and bottom, not negative.
        middles: (B, P) logits of nearness to the middle.
        places: (P, 2) x and y in pixels.
        strides: (P,) pixels from place to place.
    """

    logits: Tensor
    reaches: Tensor
    middles: Tensor
    places: Tensor
    strides: Tensor


class Detector(nn.Module):
    """A feature pyramid over an encoder's maps, and one head for all of its levels.

    Args:
        widths: channels of the encoder's maps that are read, fine to coarse.
        strides: pixels from place to place of each. More levels follow: finer ones than a first map of stride 16 and
            more, each by a transposed convolution, and coarser ones up to `LEVELS` in all, by convolutions of stride 2.
        classes: C.
        width: channels of pyramid and head.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        less = sum(strides[0] // 2**at >= LEAST_STRIDE for at in range(1, 8))
        more = max(0, LEVELS - len(widths) - less)
        self.strides = [
            *(strides[0] // 2**at for at in range(less, 0, -1)), *strides,
            *(strides[-1] * 2 ** (at + 1) for at in range(more)),
        ]  # fmt: skip
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.finer = nn.ModuleList(_doubled(width) for _ in range(less))
        self.coarser = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(more))
        self.of_class, self.of_box = _tower(width), _tower(width)
        self.classes = nn.Conv2d(width, classes, 3, padding=1)
        self.box = nn.Conv2d(width, 5, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias) if layer.bias is not None else None
        for layer in (self.classes, self.box):
            nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Found:
        """Of the encoder's maps, (B, width, h, w) each."""
        levels = self._pyramid(maps)
        logits, reaches, middles, places, strides = [], [], [], [], []
        for at, (level, stride) in enumerate(zip(levels, self.strides, strict=True)):
            box = self.box(self.of_box(level)).float()
            logits.append(self.classes(self.of_class(level)).float().flatten(2).transpose(1, 2))
            reaches.append(stride * F.softplus(self.scales[at] * box[:, :4]).flatten(2).transpose(1, 2))
            middles.append(box[:, 4].flatten(1))
            places.append(_grid(level.shape[2], level.shape[3], stride, level.device))
            strides.append(torch.full((len(places[-1]),), float(stride), device=level.device))
        return Found(
            torch.cat(logits, 1), torch.cat(reaches, 1), torch.cat(middles, 1), torch.cat(places), torch.cat(strides)
        )

    def _pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        laid = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        for at in range(len(laid) - 1, 0, -1):
            laid[at - 1] = laid[at - 1] + F.interpolate(laid[at], size=laid[at - 1].shape[2:], mode="nearest")
        levels = [layer(one) for layer, one in zip(self.smooth, laid, strict=True)]
        for finer in self.finer:
            levels.insert(0, finer(levels[0]))
        for layer in self.coarser:
            levels.append(layer(F.relu(levels[-1])))
        return levels


def _doubled(width: int) -> nn.Sequential:
    """A map of twice the height and width."""
    return nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2), nn.GroupNorm(1, width), nn.GELU())


def _tower(width: int) -> nn.Sequential:
    groups = math.gcd(width, 32) if width % 8 else max(1, width // 8)
    return nn.Sequential(
        *(part for _ in range(2) for part in (nn.Conv2d(width, width, 3, padding=1, bias=False),
                                              nn.GroupNorm(groups, width), nn.ReLU(inplace=True)))
    )  # fmt: skip


def _grid(high: int, wide: int, stride: int, device: torch.device) -> Tensor:
    """(high wide, 2) the middles of a map's places in pixels."""
    down, across = torch.meshgrid(torch.arange(high, device=device), torch.arange(wide, device=device), indexing="ij")
    return (torch.stack([across, down], dim=-1).flatten(0, 1) + 0.5) * stride


def read_maps(encoder: Encoder, pictures: Tensor) -> list[Tensor]:
    """The encoder's maps that a detector reads: those of a stride of 8 and more, at most three, else the coarsest."""
    maps = encoder.maps(pictures)
    coarse = [one for one in maps if pictures.shape[-1] // one.shape[-1] >= LEAST_STRIDE]
    return (coarse or maps[-1:])[-LEVELS:]


@torch.no_grad()
def shapes_of(encoder: Encoder) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps that `read_maps` gives for pictures of the encoder's size."""
    training, side = encoder.training, int(encoder.facts["size"])
    like = next(encoder.parameters())
    pictures = torch.zeros(1, int(encoder.facts["channels"]), side, side, device=like.device, dtype=like.dtype)
    maps = read_maps(encoder.eval(), pictures)
    encoder.train(training)
    return [one.shape[1] for one in maps], [side // one.shape[-1] for one in maps]


def detector_of(nets: Nets) -> Detector:
    """The part named `detector`."""
    head = nets.parts["detector"]
    if not isinstance(head, Detector):
        raise TypeError("these nets have no Detector")
    return head


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


class Dense(nn.Module):
    """A detector's answers at all places, before suppression: what an ONNX file is of."""

    outputs = ("boxes", "scores")

    def __init__(self, encoder: Encoder, detector: Detector) -> None:
        super().__init__()
        self.encoder, self.detector = encoder, detector

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P, 4) corners x1, y1, x2, y2 as shares of the picture, and (B, P, C) scores of classes."""
        found = self.detector(read_maps(self.encoder, pictures))
        side = pictures.shape[-1]
        return boxes_of(found).clamp(0, side) / side, scores_of(found)


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


def boxes_of(found: Found) -> Tensor:
    """(B, P, 4) x1, y1, x2, y2 in pixels."""
    return torch.cat([found.places - found.reaches[..., :2], found.places + found.reaches[..., 2:]], dim=-1)


def scores_of(found: Found) -> Tensor:
    """(B, P, C): the geometric mean of a class's probability and the nearness to an object's middle."""
    return (found.logits.sigmoid() * found.middles.sigmoid()[..., None]).sqrt()


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
