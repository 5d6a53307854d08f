"""A small conv net for small pictures that learns in minutes on a CPU. Needs torch.

`depth` stages at 1x, 2x, 4x, … the width, each but the first halving the picture; plain 3 x 3 convolutions, as in
ResNet-9 of David Page's DAWNBench entry ("How to train your ResNet", 2018), with the arithmetic moved to the small
maps, where a convolution is cheapest for what it learns. Batch normalisation: see `ssl_core.encoders.resnet`.

B pictures, C channels, h and w positions left after the strides, D = width x 2^(depth - 1).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Inputs
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.resnet import ConvNorm, initialise_convolutions, pictures_of, positions_of
from ssl_core.errors import SpecError

# Kernel and stride of the stem.
_STEMS = {"small": (3, 1), "medium": (5, 2), "large": (5, 4)}


class ConvNet(Encoder):
    """A stem with one residual convolution, then stages that each halve the picture and refine it twice.

    The stem's stride is 1 (`small`), 2 (`medium`) or 4 (`large`): at full size a convolution and its normalisation move
    many bytes for little arithmetic, and on a CPU stride 2 trains three times as many 32 px pictures a second.
    """

    def __init__(self, spec: EncoderSpec, facts: dict[str, Any]) -> None:
        super().__init__()
        kernel, stride = _STEMS[spec.stem]
        smallest = 2 ** (spec.depth - 1)
        if facts["size"] < smallest:
            text = f"a conv net of depth {spec.depth} needs pictures of at least {smallest} pixels, not {facts['size']}"
            raise SpecError("encoder_does_not_fit", text, "modality.size")
        self.spec, self.facts = spec, facts
        self.stem = ConvNorm(facts["channels"], spec.width, kernel, stride)
        self.refine = ConvNorm(spec.width, spec.width, 3)
        widths = [spec.width * 2**stage for stage in range(spec.depth)]
        self.stages = nn.Sequential(*(Stage(a, b) for a, b in pairwise(widths)))
        self.embed_dim = widths[-1]
        initialise_convolutions(self)

    def encode(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """(B, h w, D): the last feature map, row by row. It has no tokens to leave out, so no `keep` and no `fill`."""
        return positions_of(self._map(x), keep, fill)

    def forward(self, x: Inputs) -> Tensor:
        """(B, D): the global average."""
        return self._map(x).mean(dim=(2, 3))

    def maps(self, x: Inputs) -> list[Tensor]:
        """The stages' outputs, from the stem's on, each half as wide and high as the one before."""
        x = F.relu(self.stem(pictures_of(x)), inplace=True)
        found = [x + F.relu(self.refine(x), inplace=True)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found

    def _map(self, x: Inputs) -> Tensor:
        x = F.relu(self.stem(pictures_of(x)), inplace=True)
        features: Tensor = self.stages(x + F.relu(self.refine(x), inplace=True))
        return features


class Stage(nn.Module):
    """A strided convolution to twice the channels, then two residual ones."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.down = ConvNorm(inside, outside, 3, 2)
        self.refine = nn.ModuleList(ConvNorm(outside, outside, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h / 2, w / 2) from (B, C, h, w)."""
        x = F.relu(self.down(x), inplace=True)
        for refine in self.refine:
            x = x + F.relu(refine(x), inplace=True)
        return x
