"""Which patches suit a picture. Imports without torch."""

from __future__ import annotations

import math

from ssl_core.backbones import BACKBONES, EncoderSpec

_LARGEST = 16
_LEAST_PATCHES = 64


def fitted_vit(name: str, height: int, width: int) -> EncoderSpec:
    """A ViT of `BACKBONES` with the largest patches, up to 16 pixels, that divide pictures into 64 or more.

    So 224 pixels have patches of 16, 64 of 8, 32 of 4; a picture of fewer than 64 pixels has patches of one.
    """
    row = BACKBONES[name]
    common = math.gcd(height, width)
    fitting = [
        size
        for size in range(1, _LARGEST + 1)
        if common % size == 0 and height * width >= _LEAST_PATCHES * size**2
    ]
    size = max(fitting, default=1)
    return row if size == row.patch_size else row.model_copy(update={"name": "custom", "patch_size": size})


def square_vit(name: str, pixels: int) -> EncoderSpec:
    """The same for square pictures of so many pixels."""
    side = math.isqrt(pixels)
    return fitted_vit(name, side, side)
