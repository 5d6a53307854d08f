"""The confusion matrix: which class is called what. Needs torch."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssl_core.evaluation.attention import MARGIN, heat_map

_NUMBERED = 25
"""Classes up to which there is room for the counts."""
_NAME = 14
"""Letters of a class name that have room."""


def picture(counts: Tensor, classes: list[str]) -> Image.Image:
    """Of (C, C) counts, row i the true class, column j what it was called: darker where a greater share of the row is,
    with the counts where there is room."""
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    names = [name if len(name) <= _NAME else name[: _NAME - 1] + "…" for name in classes]
    numbered = len(classes) <= _NUMBERED
    cell = 36 if numbered else 14
    table = heat_map(shares, names, cell)
    drawing, font = ImageDraw.Draw(table), ImageFont.load_default(11)
    for row, values in enumerate(counts.tolist() if numbered else []):
        for column, count in enumerate(values):
            place = (MARGIN + cell * column + cell // 2, MARGIN + cell * row + cell // 2)
            light = shares[row, column] > 0.5 * shares.max()
            drawing.text(place, str(count), fill=255 if light else 0, font=font, anchor="mm")
    return table
