"""Pictures of maps of pairs."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

_SIDE, _GAP = 320, 12
"""Pixels of a map and between two."""


def table(maps: list[Tensor]) -> Image.Image:
    """Maps (L, L) of values 0 to 1 beside each other, darker where greater, each as large as the others."""
    whole = Image.new("L", (len(maps) * (_SIDE + _GAP) - _GAP, _SIDE), 255)
    for at, values in enumerate(maps):
        shades = 255 - (255 * values.clamp(0, 1)).round().byte()
        picture = Image.fromarray(shades.numpy()).resize((_SIDE, _SIDE), Image.Resampling.BOX)
        whole.paste(picture, (at * (_SIDE + _GAP), 0))
    return whole
