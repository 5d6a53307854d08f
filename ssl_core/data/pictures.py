"""Picture files: told by their first bytes, measured before they are decoded, decoded to plain arrays.

Only the formats of `SIGNATURES` reach a decoder, each its own one and never a guess of the library's.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MAX_PIXELS = 40_000_000
"""Width times height; below Pillow's own warning, so that a decoded picture with alpha stays under 200 MB."""
MAX_SIDE = 30_000
MAX_FILE_BYTES = 64 * 2**20
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
KEPT = ("JPEG", "PNG", "WEBP")
"""Formats whose bytes are stored as they came; the rest is stored as PNG."""
_ALLOWED = "JPEG, PNG, WebP, GIF, BMP and TIFF"
_WHITE = (255, 255, 255, 255)
# What Pillow raises for broken bytes, by experience with fuzzed files of every format above.
_BROKEN = (OSError, ValueError, SyntaxError, KeyError, IndexError, TypeError, EOFError, struct.error, OverflowError,
           ZeroDivisionError, AttributeError, RuntimeError, MemoryError)  # fmt: skip


def kind_of(data: bytes) -> str | None:
    """`JPEG`, `PNG`, ... by the first bytes; None for anything that is not an allowed picture."""
    for signature, name in SIGNATURES:
        if data.startswith(signature):
            return name
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


@dataclass(frozen=True)
class Decoded:
    """A picture upright: (height, width, channels) uint8, perhaps smaller than the file's `width` and `height`."""

    array: NDArray[np.uint8]
    width: int
    height: int


def decode(data: bytes, channels: int | None = None, least_side: int = 0) -> NDArray[np.uint8]:
    """The array of `examine`."""
    return examine(data, channels, least_side).array


def examine(data: bytes, channels: int | None = None, least_side: int = 0) -> Decoded:
    """Decode a picture; alpha lies on white, 16 bits become 8, EXIF orientation is undone.

    Args:
        data: a whole file.
        channels: 1 or 3; None = the file's own, 1 for grey and 3 for the rest.
        least_side: where given, a large picture may come smaller, its shorter side no less than this: cheaper.

    Raises:
        DataError: `file_too_large`, `unsupported_type`, `too_many_pixels` (all before decoding), `decode_error`.
    """
    import numpy as np

    with _opened(data) as picture:
        try:
            turned = _orientation(picture)
            fast = _simple_jpeg(data, picture, channels, least_side) if picture.format == "JPEG" else None
            array = _pillow(picture, channels, least_side) if fast is None else fast
            width, height = picture.size if turned < 5 else picture.size[::-1]
            return Decoded(np.ascontiguousarray(_upright(array, turned)), width, height)
        except _BROKEN as error:
            raise DataError("decode_error", f"the {picture.format} data is broken: {_reason(error)}") from error


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a picture file, upright, without decoding it. Raises DataError as `examine`."""
    with _opened(data) as picture:
        try:
            return picture.size if _orientation(picture) < 5 else picture.size[::-1]
        except _BROKEN as error:
            raise DataError("decode_error", f"the {picture.format} header is broken: {_reason(error)}") from error


def stored(data: bytes) -> bytes:
    """What a dataset keeps of a picture: its own bytes, or a PNG for a format not in `KEPT`."""
    from PIL import Image

    if kind_of(data) in KEPT:
        return data
    array = decode(data)
    out = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(out, "PNG")
    return out.getvalue()


def fitted(array: NDArray[np.uint8], side: int, fit: str) -> NDArray[np.uint8]:
    """(side, side, C) of a picture (H, W, C): `crop`, its middle square; `stretch`, all of it, each way by itself."""
    if fit == "crop":
        return square(array, side)
    import numpy as np
    from PIL import Image

    if array.shape[:2] == (side, side):
        return array
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    resized = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    return resized.reshape(side, side, array.shape[2])


def square(array: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(side, side, C): the middle square of a picture (H, W, C), resampled where its side differs."""
    import numpy as np
    from PIL import Image

    height, width, channels = array.shape
    if height == width == side:
        return array
    middle = min(height, width)
    left, top = (width - middle) / 2, (height - middle) / 2
    picture = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    box = (left, top, left + middle, top + middle)
    resized = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized, dtype=np.uint8).reshape(side, side, channels)


def _opened(data: bytes) -> Image.Image:
    from PIL import Image

    if len(data) > MAX_FILE_BYTES:
        raise DataError("file_too_large", f"a picture file has at most {MAX_FILE_BYTES >> 20} MB")
    kind = kind_of(data)
    if kind is None:
        raise DataError("unsupported_type", f"not a picture of an allowed format ({_ALLOWED}), told by its first bytes")
    try:
        picture = Image.open(io.BytesIO(data), formats=[kind])
    except Image.DecompressionBombError as error:
        raise DataError("too_many_pixels", f"at most {MAX_PIXELS:,} pixels are allowed") from error
    except _BROKEN as error:
        raise DataError("decode_error", f"the {kind} header is broken: {_reason(error)}") from error
    if picture.format == "MPO":
        raise DataError("unsupported_type", f"several pictures in one file (MPO); allowed: {_ALLOWED}")
    if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE:
        size = f"{picture.width} x {picture.height}"
        raise DataError("too_many_pixels", f"{size}; at most {MAX_PIXELS:,} pixels and {MAX_SIDE:,} a side are allowed")
    if kind == "TIFF":
        _check_tiles(picture)
    return picture


def _check_tiles(picture: Image.Image) -> None:
    """A TIFF may declare tiles far larger than itself, and its decoder would allocate one."""
    tags: Any = getattr(picture, "tag_v2", {})
    width, height = tags.get(322, 1), tags.get(323, 1)
    if not isinstance(width, int) or not isinstance(height, int) or width * height > MAX_PIXELS:
        raise DataError("decode_error", f"a TIFF tile of {width} x {height} pixels; at most {MAX_PIXELS:,} are allowed")


def _simple_jpeg(data: bytes, picture: Image.Image, channels: int | None, least_side: int) -> NDArray[np.uint8] | None:
    """The fast decoder's answer; None where it has none (CMYK, harmless stray bytes) and Pillow must judge."""
    import simplejpeg

    if picture.mode not in ("L", "RGB"):
        return None
    grey = (channels or (1 if picture.mode == "L" else 3)) == 1
    try:
        decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "GRAY" if grey else "RGB", min_height=least_side, min_width=least_side, min_factor=1
        ) if least_side else simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB")  # fmt: skip
    except ValueError:
        return None
    return decoded


def _pillow(picture: Image.Image, channels: int | None, least_side: int) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    picture.load()
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture)
    factor = min(picture.size) // least_side if least_side else 1
    if factor > 1 and picture.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        picture = picture.reduce(factor)
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture.convert("RGBA"))
    count = channels or (1 if grey else 3)
    array = np.asarray(picture.convert("L" if count == 1 else "RGB"), dtype=np.uint8)
    return array.reshape(picture.height, picture.width, count)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey by its high byte; other integer and all real pixels have no agreed white and are refused."""
    import numpy as np
    from PIL import Image

    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError("unsupported_type", f"pixels of mode {picture.mode}; 8 and 16 bits a channel are allowed")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def _orientation(picture: Image.Image) -> int:
    value = picture.getexif().get(0x0112, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(array: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo EXIF orientation 2 to 8 (Exif 2.3, tag 0x0112)."""
    import numpy as np

    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    return np.flip(array, flips[orientation]) if orientation in flips else array


def _reason(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__
