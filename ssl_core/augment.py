"""Random pictures from pictures, batched on the training device. Needs torch.

The SimCLR family (Chen et al. 2020, https://arxiv.org/abs/2002.05709): random resized crop, flip, colour jitter,
grey, blur. Everything spatial is linear, so crop, resize, flip and blur are one matrix for the rows and one for the
columns of each picture; everything chromatic is affine in the colour of a pixel, so jitter and grey are one 3 x 3
matrix and one offset. A view is three batched matrix products, on any device, with the parameters of each picture
drawn from its own seed.

B pictures, C channels (1 or 3), S side of the stored picture, O side of the view, in pixels. Values are 0 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, as Pillow's `L`."""
_RGB_TO_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
_YIQ_TO_RGB = torch.tensor(_RGB_TO_YIQ, dtype=torch.float64).inverse().tolist()


@dataclass(frozen=True)
class Jitter:
    """Ranges of colour jitter; strength s is SimCLR's: brightness, contrast, saturation 0.8 s, hue 0.2 s."""

    strength: float
    probability: float
    grey_probability: float


def crop_boxes(draws: Tensor, scale: tuple[float, float]) -> Tensor:
    """(B, 4) top, left, height, width as shares of the picture: Inception's random resized crop (Szegedy et al. 2015).

    Args:
        draws: (B, 4) uniform: area, aspect ratio, top, left.
        scale: least and greatest share of the area. The aspect ratio is log-uniform from 3/4 to 4/3; a side longer than
            the picture is cut to it, where the original draws again.
    """
    area = scale[0] + (scale[1] - scale[0]) * draws[:, 0]
    ratio = torch.exp((2 * draws[:, 1] - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return torch.stack([draws[:, 2] * (1 - height), draws[:, 3] * (1 - width), height, width], dim=1)


def resize_matrix(start: Tensor, length: Tensor, size: int, out: int, mirror: Tensor | None = None) -> Tensor:
    """(B, out, size) weights that resample a stretch of a line: bilinear, widened when shrinking (as Pillow's).

    Args:
        start, length: (B,) the stretch, as shares of the line.
        size, out: pixels of the line and of the result.
        mirror: (B,) bool, which lines are reversed.
    """
    scale = length * size / out
    place = torch.arange(out, device=start.device, dtype=start.dtype).expand(len(start), out)
    if mirror is not None:
        place = torch.where(mirror[:, None], out - 1 - place, place)
    centre = (start * size)[:, None] + (place + 0.5) * scale[:, None]
    pixels = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    distance = (centre[:, :, None] - pixels).abs() / scale.clamp(min=1)[:, None, None]
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """(B, size, size) Gaussian of `sigma` (B,) pixels along a line, renormalised at its ends; 0 is the identity."""
    pixels = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    squared = (pixels[:, None] - pixels) ** 2
    weights = torch.exp(-squared / (2 * sigma.clamp(min=1e-3) ** 2)[:, None, None])
    return weights / weights.sum(-1, keepdim=True)


def resample(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, O, O) from pictures (B, C, S, S) and the matrices (B, O, S) of their rows and columns.

    Both products take their operand transposed, so nothing is copied in between; the result lies in memory as
    (B, O, O, C), which `recolour` and channels-last layers read as it is.
    """
    batch, channels, size, _ = pictures.shape
    out = rows.shape[1]
    across = torch.bmm(columns, pictures.reshape(batch, channels * size, size).transpose(1, 2))
    down = torch.bmm(rows, across.view(batch, out * channels, size).transpose(1, 2))
    return down.view(batch, out, out, channels).permute(0, 3, 1, 2)


def hue_matrix(turn: Tensor) -> Tensor:
    """(B, 3, 3) rotation of the colour plane of YIQ by `turn` (B,) whole turns: brightness and greys stay."""
    base = torch.tensor(_RGB_TO_YIQ, device=turn.device, dtype=turn.dtype)
    angle = 2 * math.pi * turn
    rotation = torch.zeros(len(turn), 3, 3, device=turn.device, dtype=turn.dtype)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = torch.cos(angle)
    rotation[:, 2, 1] = torch.sin(angle)
    rotation[:, 1, 2] = -rotation[:, 2, 1]
    back = torch.tensor(_YIQ_TO_RGB, device=turn.device, dtype=turn.dtype)
    return back @ rotation @ base


def saturation_matrix(factor: Tensor) -> Tensor:
    """(B, 3, 3) blend of a picture with its grey one: factor 0 is grey, 1 the picture itself (Pillow's `Color`)."""
    grey = torch.tensor(LUMA, device=factor.device, dtype=factor.dtype).expand(3, 3)
    kept = torch.eye(3, device=factor.device, dtype=factor.dtype)
    blend = factor[:, None, None]
    return blend * kept + (1 - blend) * grey


def colour_transform(draws: Tensor, brightness_of: Tensor, channels: int, jitter: Jitter) -> tuple[Tensor, Tensor]:
    """Matrix (B, C, C) and offset (B,) of brightness, contrast, saturation, hue and grey, in that order.

    The product is exact but for clipping, which happens once at the end instead of after each step.

    Args:
        draws: (B, 6) uniform: brightness, contrast, saturation, hue, whether to jitter, whether to grey.
        brightness_of: (B,) mean luma of each picture, which contrast pulls towards.
        channels: 1 or 3; a grey picture has brightness and contrast only.
        jitter: the ranges.
    """
    applied = (draws[:, 4] < jitter.probability).to(draws.dtype)
    spread = 0.8 * jitter.strength * applied
    factors = (1 + (2 * draws[:, :3] - 1) * spread[:, None]).clamp(min=0)
    brightness, contrast, saturation = factors.unbind(1)
    gain = brightness * contrast
    offset = brightness * (1 - contrast) * brightness_of
    if channels == 1:
        return gain[:, None, None], offset
    turn = (2 * draws[:, 3] - 1) * 0.2 * jitter.strength * applied
    matrix = hue_matrix(turn) @ (saturation_matrix(saturation) * gain[:, None, None])
    # Greys are fixed points of all three matrices, so the offset passes through them unchanged.
    greyed = draws[:, 5] < jitter.grey_probability
    grey = saturation_matrix(torch.where(greyed, 0.0, 1.0).to(draws.dtype))
    return grey @ matrix, offset


def mean_luma(pictures: Tensor) -> Tensor:
    """(B,) mean luma of (B, C, H, W)."""
    means = pictures.mean(dim=(2, 3))
    if pictures.shape[1] == 1:
        return means[:, 0]
    return means @ torch.tensor(LUMA, device=pictures.device, dtype=pictures.dtype)


def recolour(pictures: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """(B, C, H, W), each pixel times its picture's matrix plus its offset, clipped to 0..1."""
    flat: Tensor = torch.baddbmm(offset[:, None, None], matrix, pictures.flatten(2))
    return flat.clamp_(0, 1).view(pictures.shape)


def normalise(pictures: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, C, H, W) minus `mean`, by `std`, both (B, C); in one pass."""
    scale = 1 / std
    return torch.addcmul((-mean * scale)[:, :, None, None], pictures, scale[:, :, None, None])


def centre_crop(pictures: Tensor, out: int) -> Tensor:
    """The middle `out` x `out` pixels."""
    first = (pictures.shape[-1] - out) // 2
    return pictures[..., first : first + out, first : first + out]


def shift_crop(pictures: Tensor, out: int, padding: int, shift: Tensor, mirror: Tensor) -> Tensor:
    """(B, C, out, out) whole-pixel crops of pictures continued past their edges by reflection, some reversed.

    Args:
        pictures: (B, C, S, S) of any number type.
        out: side of the result.
        padding: pixels a crop may reach over each edge, less than S.
        shift: (B, 2) uniform draws of top and left.
        mirror: (B,) bool, which are reversed left to right.
    """
    size = pictures.shape[-1]
    room = size + 2 * padding - out + 1
    first = (shift * room).long().clamp(max=room - 1) - padding
    place = torch.arange(out, device=pictures.device)
    across = torch.where(mirror[:, None], out - 1 - place, place)
    rows = _reflected(first[:, :1] + place, size)[:, None, :, None]
    columns = _reflected(first[:, 1:] + across, size)[:, None, None, :]
    samples = torch.arange(len(pictures), device=pictures.device)[:, None, None, None]
    channels = torch.arange(pictures.shape[1], device=pictures.device)[None, :, None, None]
    return pictures[samples, channels, rows, columns]


def _reflected(index: Tensor, size: int) -> Tensor:
    """Pixel numbers outside 0..size-1 folded back at the edge pixel, which is not repeated."""
    return size - 1 - (size - 1 - index.abs()).abs()
