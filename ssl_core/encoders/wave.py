"""wav2vec 2.0: convolutions make frames of a raw waveform, a Transformer sets them in context. Needs torch.

Baevski et al. 2020, https://arxiv.org/abs/2006.11477. `norm="post"` with `stem_norm="group"` is the paper's base model,
`norm="pre"` without an embedding norm and with `stem_norm="layer"` its large one; tests hold both to the public code,
output and gradient. The stem has a stride of 80, 160 or 320 samples (`small`, `medium`, `large`; the paper's is large,
20 ms at 16 kHz).

B clips, S samples, F frames, K of them kept, W channels of the stem, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import STEM_STEPS, EncoderSpec
from ssl_core.batch import Inputs
from ssl_core.dropout import Dropout
from ssl_core.encoders.base import Encoder
from ssl_core.errors import SpecError
from ssl_core.layers import Layer, initialise, masked_mean, norm_of, shrink_residuals


class Wave(Encoder):
    """A convolutional stem, a projection, convolutional positions, `depth` layers.

    An objective that hides frames asks for `features` (what its quantiser reads), projects them with `project`, puts
    its mask token in and gives the result to `encode` as `fill`: the stem then runs once.

    Attributes:
        project: (..., W) features to (..., D) input embeddings.
    """

    def __init__(self, spec: EncoderSpec, facts: dict[str, Any]) -> None:
        super().__init__()
        self.spec, self.facts, self.embed_dim = spec, facts, spec.width
        steps = STEM_STEPS[spec.stem]
        if frames_of(spec, facts["samples"]) < 1:
            text = f"clips of {facts['samples']} samples are shorter than a frame of the {spec.stem} stem"
            raise SpecError("encoder_does_not_fit", text, "backbone.stem")
        self.stem = nn.ModuleList(StemLayer(spec, at, *step) for at, step in enumerate(steps))
        self.feature_norm = norm_of(spec, spec.stem_width)
        self.project = nn.Linear(spec.stem_width, spec.width)
        self.position = PositionConvolution(spec) if spec.positions == "convolution" else None
        self.embedding_norm = norm_of(spec) if spec.embedding_norm else nn.Identity()
        self.dropout = Dropout(spec.dropout)
        self.layers = nn.ModuleList(Layer(spec, first=at == 0) for at in range(spec.depth))
        self.final_norm = norm_of(spec) if spec.norm == "pre" else nn.Identity()
        self.apply(initialise)
        if spec.norm == "pre":
            shrink_residuals(self.layers)

    def features(self, x: Inputs) -> Tensor:
        """(B, F, W) normalised output of the stem, the paper's latent speech representations z."""
        if not isinstance(x, Tensor) or x.ndim != 2:
            raise TypeError("a wave encoder reads waveforms (B, S)")
        if frames_of(self.spec, x.shape[1]) < 1:
            raise ValueError(f"clips of {x.shape[1]} samples are shorter than a frame of the {self.spec.stem} stem")
        hidden = x[:, None]
        for layer in self.stem:
            hidden = layer(hidden)
        normed: Tensor = self.feature_norm(hidden.transpose(1, 2))
        return normed

    def patches(self, x: Inputs) -> Tensor:
        """(B, F, D) projected features, before positions and norm."""
        projected: Tensor = self.project(self.features(x))
        return projected

    def encode(
        self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """(B, F, D) or (B, K, D); see `Encoder.encode`.

        Args:
            x: (B, S) waveforms; not looked at where there is `fill`.
            keep: (B, K) frames; the others count as silence for the positions.
            fill: (B, F, D).
            lengths: (B,) samples of each clip, the rest of a row is padding that nobody sees; None = all of it.
        """
        hidden = self.patches(x) if fill is None else fill
        real = None if lengths is None else self.real(lengths, hidden.shape[1])
        if real is not None:
            hidden = hidden * real[:, :, None]
        if keep is not None:
            hidden = hidden * torch.zeros_like(hidden[:, :, :1]).scatter(1, keep[:, :, None], 1.0)
        if self.position is not None:
            hidden = hidden + self.position(hidden)
        if keep is not None:
            hidden = hidden.gather(1, keep[:, :, None].expand(-1, -1, hidden.shape[2]))
            real = None if real is None else real.gather(1, keep)
        hidden = self.dropout(self.embedding_norm(hidden))
        mask = None if real is None else _seen(real)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        last: Tensor = self.final_norm(hidden)
        return last

    def forward(self, x: Inputs, lengths: Tensor | None = None) -> Tensor:
        """(B, D): the mean over the frames; `lengths` as in `encode`."""
        hidden = self.encode(x, lengths=lengths)
        return hidden.mean(1) if lengths is None else masked_mean(hidden, self.real(lengths, hidden.shape[1]))

    def real(self, lengths: Tensor, frames: int) -> Tensor:
        """(B, F) bool, True for the frames that lie within clips of so many samples, (B,) int64."""
        count: Tensor = frames_of(self.spec, lengths)
        within: Tensor = torch.arange(frames, device=lengths.device) < count[:, None]
        return within


class StemLayer(nn.Module):
    """A convolution without padding, its norm, GELU."""

    def __init__(self, spec: EncoderSpec, at: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = spec.stem_width
        self.conv = nn.Conv1d(1 if at == 0 else width, width, kernel, stride, bias=spec.stem_bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.by_channel = spec.stem_norm == "layer"
        if self.by_channel:
            self.norm: nn.Module = nn.LayerNorm(width)
        else:
            self.norm = nn.GroupNorm(width, width) if at == 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, F') from (B, 1 or W, F)."""
        hidden = self.conv(x)
        if self.by_channel:
            return F.gelu(self.norm(hidden.transpose(1, 2))).transpose(1, 2)
        return F.gelu(self.norm(hidden))


class PositionConvolution(nn.Module):
    """Relative positions: a wide grouped convolution with weight norm over each tap, and GELU (Mohamed et al. 2019,
    "Transformers with convolutional context for ASR", https://arxiv.org/abs/1904.11660)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.kernel, self.groups = spec.position_kernel, spec.position_groups
        spread = 2 * (self.kernel * spec.width) ** -0.5
        self.direction = nn.Parameter(spread * torch.randn(spec.width, spec.width // self.groups, self.kernel))
        self.gain = nn.Parameter(self.direction.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(spec.width))

    def weight(self) -> Tensor:
        """(D, D / groups, kernel): each tap has the length of its gain (Salimans and Kingma 2016, arXiv 1602.07868)."""
        made: Tensor = self.direction * (self.gain / self.direction.norm(dim=(0, 1), keepdim=True))
        return made

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, D) from (B, F, D)."""
        # An even kernel has half its taps before a frame and one less behind it: with a tap of zeros there it gives as
        # many frames as it got. And oneDNN (torch 2.13) is wrong with even kernels of a few channels in bf16 on AMX.
        weight = F.pad(self.weight(), (0, 1 - self.kernel % 2))
        hidden = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups)
        return F.gelu(hidden).transpose(1, 2)


def frames_of(spec: EncoderSpec, samples: Any) -> Any:
    """Frames of clips of so many samples: an int, or a tensor of them."""
    for kernel, stride in STEM_STEPS[spec.stem]:
        samples = (samples - kernel) // stride + 1
    return samples


def _seen(real: Tensor) -> Tensor:
    """(B, 1, 1, F): everyone looks at the real frames; a clip of padding alone looks at all of it, to stay finite."""
    return (real | ~real.any(1, keepdim=True))[:, None, None]
