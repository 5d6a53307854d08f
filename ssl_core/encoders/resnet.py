"""ResNet-18 and ResNet-50 (He et al. 2015, https://arxiv.org/abs/1512.03385). Needs torch.

`stem="large"` is the paper's (7 x 7, stride 2, max pooling); `stem="small"` is a 3 x 3 of stride 1 without pooling, as
SimCLR uses it for CIFAR (Chen et al. 2020, appendix B.9). The bottleneck strides in its 3 x 3 (version 1.5).

Batch normalisation learns from the statistics of the pictures that one process sees in one call, and keeps running
averages for evaluation: an objective with two views should pass both in one call, and a frozen encoder must be in
evaluation mode.

B pictures, C channels, h and w positions left after the strides, D = 512 or 2,048 for width 64.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Inputs
from ssl_core.convolution import Conv2d
from ssl_core.encoders.base import Encoder

_DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class ConvNorm(nn.Sequential):
    """A convolution without bias, padded to keep the size, and its batch normalisation."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outside)
        )


class Block(nn.Module):
    """A residual block: two 3 x 3 (depth 18), or 1 x 1, 3 x 3, 1 x 1 with four times the channels (depth 50)."""

    def __init__(self, inside: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outside = 4 * width if bottleneck else width
        if bottleneck:
            parts = [ConvNorm(inside, width, 1), ConvNorm(width, width, 3, stride), ConvNorm(width, outside, 1)]
        else:
            parts = [ConvNorm(inside, width, 3, stride), ConvNorm(width, width, 3)]
        self.parts = nn.ModuleList(parts)
        plain = inside == outside and stride == 1
        self.shortcut = nn.Identity() if plain else ConvNorm(inside, outside, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h', w') from (B, C, h, w)."""
        out = x
        for at, part in enumerate(self.parts):
            out = part(out)
            if at < len(self.parts) - 1:
                out = F.relu(out, inplace=True)
        return F.relu(out + self.shortcut(x), inplace=True)


class ResNet(Encoder):
    """A stem, four stages, a global average."""

    def __init__(self, spec: EncoderSpec, facts: dict[str, Any]) -> None:
        super().__init__()
        self.spec, self.facts = spec, facts
        bottleneck = spec.depth == 50
        large = spec.stem == "large"
        self.stem = ConvNorm(facts["channels"], spec.width, 7 if large else 3, 2 if large else 1)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()
        inside, stages = spec.width, []
        for stage, depth in enumerate(_DEPTHS[spec.depth]):
            width = spec.width * 2**stage
            for at in range(depth):
                stages.append(Block(inside, width, 2 if stage > 0 and at == 0 else 1, bottleneck))
                inside = 4 * width if bottleneck else width
        self.blocks = nn.Sequential(*stages)
        self.embed_dim = inside
        initialise_convolutions(self)

    def encode(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """(B, h w, D): the last feature map, row by row. It has no tokens to leave out, so no `keep` and no `fill`."""
        return positions_of(self._map(x), keep, fill)

    def forward(self, x: Inputs) -> Tensor:
        """(B, D)."""
        return self._map(x).mean(dim=(2, 3))

    def maps(self, x: Inputs) -> list[Tensor]:
        """The four stages' outputs, 1, 2, 4 and 8 times the stem's stride."""
        features, found = self.pool(F.relu(self.stem(pictures_of(x)), inplace=True)), []
        ends = [sum(_DEPTHS[self.spec.depth][: stage + 1]) for stage in range(4)]
        for at, block in enumerate(self.blocks, 1):
            features = block(features)
            if at in ends:
                found.append(features)
        return found

    def _map(self, x: Inputs) -> Tensor:
        features: Tensor = self.blocks(self.pool(F.relu(self.stem(pictures_of(x)), inplace=True)))
        return features


def pictures_of(x: Inputs) -> Tensor:
    """(B, C, H, W), laid out with the channels last, which is what convolutions are fastest on."""
    if not isinstance(x, Tensor):
        raise TypeError("a conv net reads pictures (B, C, H, W), not Tokens")
    return x.contiguous(memory_format=torch.channels_last)


def positions_of(features: Tensor, keep: Tensor | None, fill: Tensor | None) -> Tensor:
    """(B, h w, D) from (B, D, h, w)."""
    if keep is not None or fill is not None:
        raise ValueError("a conv net computes every position: it takes neither keep nor fill")
    return features.flatten(2).transpose(1, 2)


def initialise_convolutions(module: nn.Module) -> None:
    """He's initialisation for ReLU (He et al. 2015, https://arxiv.org/abs/1502.01852), by what goes out."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
