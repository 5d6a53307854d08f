"""Objects found in feature maps: the network of a one-stage detector without anchors. Needs torch.

FCOS (Tian et al. 2019, "FCOS: Fully convolutional one-stage object detection", https://arxiv.org/abs/1904.01355): every
place of every map tells the classes of the object that it lies in, how far that object reaches to the left, top, right
and bottom, and how near it is to its middle. The pyramid: Lin et al. 2017, https://arxiv.org/abs/1612.03144; of a plain
ViT, whose one map is coarse, with transposed convolutions in front: Li et al. 2022, "Exploring plain vision transformer
backbones for object detection", https://arxiv.org/abs/2203.16527. What it learns by is `ssl_core.detection`.

B pictures, P places of all maps together, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.convolution import Conv2d
from ssl_core.encoders.base import Encoder
from ssl_core.nets import Nets

LEVELS = 3
LEAST_STRIDE = 8
PRIOR = 0.01
"""How likely a place is to hold an object before anything is learned: else the many empty places swamp the start."""


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
        self.coarser = nn.ModuleList(Conv2d(width, width, 3, stride=2, padding=1) for _ in range(more))
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


def boxes_of(found: Found) -> Tensor:
    """(B, P, 4) x1, y1, x2, y2 in pixels."""
    return torch.cat([found.places - found.reaches[..., :2], found.places + found.reaches[..., 2:]], dim=-1)


def scores_of(found: Found) -> Tensor:
    """(B, P, C): the geometric mean of a class's probability and the nearness to an object's middle."""
    return (found.logits.sigmoid() * found.middles.sigmoid()[..., None]).sqrt()


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
