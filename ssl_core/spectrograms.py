"""Log-mel spectrograms, and random ones from them, batched on the training device. Needs torch.

Power of a short-time Fourier transform (Hann window, frames centred, silence beyond the ends), summed in triangular
bands of equal width on the mel scale of O'Shaughnessy 1987 (2595 log10(1 + f / 700)), each band of unit area as in
Slaney 1998, natural logarithm. The power is divided by the window's energy, so white noise of variance v has power v in
every bin, whatever the sizes.

B clips, S samples, M mel bands, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Analysis:
    """The sizes of a spectrogram.

    Attributes:
        rate: samples a second.
        window: samples of a frame; the transform has the next power of two.
        hop: samples from frame to frame.
        mels: bands, from 0 Hz to half the rate.
        floor: power added before the logarithm: the silence that everything fades into.
    """

    rate: int
    window: int
    hop: int
    mels: int
    floor: float = 1e-6

    @property
    def points(self) -> int:
        """Of the Fourier transform."""
        return 1 << (self.window - 1).bit_length()


@lru_cache(maxsize=16)
def mel_weights(analysis: Analysis) -> Tensor:
    """(points / 2 + 1, M) float32: triangles on the mel scale, their heights 2 over their width in Hz times the width
    of a bin, so that a band is the mean power of its bins."""
    bins = torch.linspace(0, analysis.rate / 2, analysis.points // 2 + 1, dtype=torch.float64)
    top = 2595 * torch.log10(torch.tensor(1 + analysis.rate / 1400, dtype=torch.float64))
    corners = 700 * (10 ** (torch.linspace(0, float(top), analysis.mels + 2, dtype=torch.float64) / 2595) - 1)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    area = triangles.sum(0)
    # A band narrower than a bin may hold none: it takes the bin nearest to its centre.
    nearest = torch.nn.functional.one_hot((bins[:, None] - centre).abs().argmin(0), len(bins)).T.double()
    weights = torch.where(area > 1e-3, triangles / area.clamp(min=1e-12), nearest)
    return weights.float()


def log_mel(audio: Tensor, analysis: Analysis) -> Tensor:
    """(B, M, F) of (B, S) float, F = S // hop."""
    window = torch.hann_window(analysis.window, device=audio.device, dtype=audio.dtype)
    spectrum = torch.stft(
        audio, analysis.points, analysis.hop, analysis.window, window,
        center=True, pad_mode="constant", return_complex=True,
    )[:, :, : audio.shape[1] // analysis.hop]  # fmt: skip
    power = (spectrum.real**2 + spectrum.imag**2) / (window**2).sum()
    weights = mel_weights(analysis).to(power)
    return torch.log(weights.T @ power + analysis.floor)


def warp_matrix(scale: Tensor, shift: Tensor, size: int) -> Tensor:
    """(B, size, size) weights that stretch a line about its middle and move it: linear, its ends held.

    Args:
        scale: (B,) pieces of the source to each of the result; above 1 the line shrinks.
        shift: (B,) moves the source by this share of the line.
        size: pieces of the line.
    """
    place = torch.arange(size, device=scale.device, dtype=scale.dtype) - (size - 1) / 2
    source = (place * scale[:, None] + (size - 1) / 2 + shift[:, None] * size).clamp(0, size - 1)
    pieces = torch.arange(size, device=scale.device, dtype=scale.dtype)
    distance = (source[:, :, None] - pieces).abs() / scale.clamp(min=1)[:, None, None]
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def stripes(draws: Tensor, size: int, widest: float) -> Tensor:
    """(B, size) True in one stripe of each line (SpecAugment, Park et al. 2019, https://arxiv.org/abs/1904.08779).

    Args:
        draws: (B, 2) uniform: width, place.
        size: pieces of the line.
        widest: the greatest share of it; the width is uniform from 0.
    """
    width = draws[:, 0] * widest * size
    first = draws[:, 1] * (size - width)
    place = torch.arange(size, device=draws.device, dtype=draws.dtype) + 0.5
    return (place >= first[:, None]) & (place < (first + width)[:, None])
