"""Pictures with texts on their way into a dataset: both sides checked, measured, sketched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates, picture_rows, texts
from ssl_core.modalities.base import Examined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def examine(content: Mapping[str, bytes]) -> Examined:
    """Both sides; the length is the text's, in characters. Raises DataError as either does."""
    image, text = picture_rows.examine(content["image"]), texts.examine(content["text"])
    return Examined(
        columns={**image.columns, **text.columns},
        length=text.length,
        sketch=lambda: (image.sketch(), text.sketch()),
        preview=lambda: {**image.preview(), **text.preview()},
    )


def near(sketches: list[Any]) -> NDArray[np.bool_]:
    """(rows,) True where both sides are nearly one that came before."""
    images, words = [image for image, _ in sketches], [text for _, text in sketches]
    return duplicates.near_pictures(images) & duplicates.near_texts(words)
