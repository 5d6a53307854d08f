"""Picture files on their way into a dataset: checked, measured, sketched."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates, pictures
from ssl_core.errors import DataError
from ssl_core.modalities.base import Examined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.data.archives import Member

PREVIEW_SIDE = 64
SKETCH_SIDE = 64
"""Pictures are decoded no larger than needed for hash and preview."""


def from_member(member: Member) -> bytes:
    """A file of an archive. Raises DataError `file_too_large`."""
    if member.size > pictures.MAX_FILE_BYTES:
        raise DataError("file_too_large", f"a picture file has at most {pictures.MAX_FILE_BYTES >> 20} MB")
    return member.read()


def from_value(value: Any) -> bytes:
    """A cell of a table: the bytes, or a struct with `bytes` as on the Hub.

    Raises:
        DataError: `wrong_type`, `unsupported_type`.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DataError("wrong_type", f"a picture is the bytes of its file, not a {type(data).__name__}")
    if pictures.kind_of(data) is None:
        raise DataError("unsupported_type", "not a picture of an allowed format, told by its first bytes")
    return data


def examine(content: bytes) -> Examined:
    """Decode a picture file; its length is the shorter side in pixels. Raises DataError, see `pictures.examine`."""
    picture = pictures.examine(content, None, SKETCH_SIDE)
    size = {"width": picture.width, "height": picture.height}
    return Examined(
        columns={"image": pictures.stored(content), **size, "channels": picture.array.shape[2]},
        length=min(picture.width, picture.height),
        sketch=lambda: duplicates.picture_sketch(picture.array),
        preview=lambda: {"image": _data_uri(picture.array), **size},
    )


def _data_uri(picture: NDArray[np.uint8]) -> str:
    """At most 64 x 64 pixels, as PNG."""
    from PIL import Image

    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
