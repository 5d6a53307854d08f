"""Sound files on their way into a dataset: checked, measured, sketched."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates, sounds
from ssl_core.errors import DataError
from ssl_core.modalities.base import Examined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.data.archives import Member

SKETCH_RATE = 8_000
"""Hz; hash and preview need no more."""
PREVIEW_FRAMES, PREVIEW_BANDS = 128, 48
_POINTS = 256
"""Of a Fourier transform, 32 ms."""


def from_member(member: Member) -> bytes:
    """A file of an archive. Raises DataError `file_too_large`."""
    if member.size > sounds.MAX_FILE_BYTES:
        raise DataError("file_too_large", f"a sound file has at most {sounds.MAX_FILE_BYTES >> 20} MB")
    return member.read()


def from_value(value: Any) -> bytes:
    """A cell of a table: the bytes, or a struct with `bytes` as on the Hub.

    Raises:
        DataError: `wrong_type`, `unsupported_type`.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DataError("wrong_type", f"a sound is the bytes of its file, not a {type(data).__name__}")
    if sounds.kind_of(data) is None:
        raise DataError("unsupported_type", "not a sound of an allowed format, told by its first bytes")
    return data


def examine(content: bytes) -> Examined:
    """Decode a sound file; its length is in milliseconds. Raises DataError, see `sounds.decode`."""
    sound = sounds.decode(content, SKETCH_RATE)
    about = {"rate": sound.rate, "channels": sound.channels}
    return Examined(
        columns={"audio": content, **about},
        length=sound.milliseconds,
        sketch=lambda: duplicates.sound_sketch(spectrogram(sound.samples, 16, 17)),
        preview=lambda: {"audio": _data_uri(sound.samples), **about, "milliseconds": sound.milliseconds},
    )


def spectrogram(samples: NDArray[np.float32], bands: int, frames: int) -> NDArray[np.uint8]:
    """(bands, frames, 1): grey picture of a whole clip at `SKETCH_RATE`, high notes above, 60 dB deep."""
    import numpy as np

    padded = np.pad(samples, (0, max(0, _POINTS - len(samples))))
    starts = np.linspace(0, len(padded) - _POINTS, 4 * frames).astype(np.int64)
    pieces = padded[starts[:, None] + np.arange(_POINTS)] * np.hanning(_POINTS)
    power = np.abs(np.fft.rfft(pieces, axis=1))[:, 1:] ** 2
    power = power.reshape(frames, 4, -1).mean(1)
    edges = np.unique(np.geomspace(1, power.shape[1], bands + 1).round().astype(np.int64) - 1)
    grouped = np.add.reduceat(power, edges[:-1], axis=1)
    picked = grouped[:, np.linspace(0, grouped.shape[1] - 1, bands).round().astype(np.int64)]
    level = 10 * np.log10(picked / max(float(picked.max()), 1e-12) + 1e-12)
    grey: NDArray[np.uint8] = ((level + 60).clip(0, 60) / 60 * 255).astype(np.uint8).T[::-1, :, None]
    return np.ascontiguousarray(grey)


def _data_uri(samples: NDArray[np.float32]) -> str:
    """A spectrogram of 128 x 48 pixels, as PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(spectrogram(samples, PREVIEW_BANDS, PREVIEW_FRAMES)[:, :, 0]).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
