"""Sound files: told by their first bytes, decoded block by block to one channel at one rate, every limit checked on the
way. Only the formats of `kind_of` reach a decoder.

Several channels are averaged. A clip has 20 ms to 30 minutes; what its header promises and the data does not hold is an
error, except in MP3 and Ogg, which are streams without a reliable length and are read to where they end.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_FILE_BYTES = 64 * 2**20
LEAST_MILLISECONDS = 20
MAX_SECONDS = 30 * 60
RATES = (1_000, 384_000)
"""Least and greatest sample rate of a file, in Hz."""
MAX_CHANNELS = 32
MAX_VALUES = 2**28
"""Samples times channels: 30 minutes of stereo at 64 kHz."""
MAX_RATIO = 1_000
"""Decoded 16-bit bytes for each byte of the file. FLAC packs nothing but silence tighter than that."""
SMALL = 2**21
"""Values that may be packed as tightly as they like: 2 minutes at 16 kHz."""
_BLOCK = 2**16
_ALLOWED = "WAV, FLAC, Ogg (Vorbis, Opus, FLAC) and MP3"
_STREAMS = ("OGG", "MP3")


def kind_of(data: bytes) -> str | None:
    """`WAV`, `FLAC`, `OGG` or `MP3` by the first bytes; None for anything else."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "WAV"
    if data.startswith(b"fLaC"):
        return "FLAC"
    if data.startswith(b"OggS"):
        return "OGG"
    if data.startswith(b"ID3"):
        return "MP3"
    # A frame header (ISO 11172-3, 2.4.1.3): 11 bits of sync, layer III, a bit rate and a sample rate that exist.
    sync = len(data) >= 3 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2 and data[1] & 0x18 != 0x08
    return "MP3" if sync and 0 < data[2] >> 4 < 15 and data[2] & 0x0C != 0x0C else None


@dataclass(frozen=True)
class Sound:
    """A clip: (samples,) float32 at the rate that was asked for.

    Attributes:
        samples: one channel; -1 to 1 as the file has it, where a file of real numbers goes beyond that brought back.
        rate: the file's, in Hz.
        channels: the file's.
        frames: samples of one channel in the file.
    """

    samples: NDArray[np.float32]
    rate: int
    channels: int
    frames: int

    @property
    def milliseconds(self) -> int:
        """Its length."""
        return max(1, round(1000 * self.frames / self.rate))


def decode(data: bytes, rate: int) -> Sound:
    """A sound file's one channel, resampled to `rate` Hz.

    Raises:
        DataError: `file_too_large`, `unsupported_type`, `unsupported_rate`, `too_many_channels`, `too_short`,
            `too_long`, `audio_bomb`, `decode_error` (broken, truncated), `not_finite`, `silent`.
    """
    import numpy as np
    import soxr

    kind = _kind(data)
    with _opened(data, kind) as file:
        _check_header(file, len(data), kind)
        own, channels = int(file.samplerate), int(file.channels)
        changed = soxr.ResampleStream(own, rate, 1, dtype="float32", quality="HQ") if own != rate else None
        parts, frames, least, most = [], 0, np.inf, -np.inf
        for block in _blocks(file, len(data)):
            least, most = min(least, float(block.min())), max(most, float(block.max()))
            parts.append(block if changed is None else changed.resample_chunk(block))
            frames += len(block)
        if changed is not None:
            parts.append(changed.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        _check_length(frames, own)
        if kind not in _STREAMS and frames < file.frames:
            raise DataError("decode_error", f"truncated: {file.frames:,} samples promised, {frames:,} are there")
    if most - least < 1e-6:
        raise DataError("silent", "the clip is silent: all of its samples are the same")
    peak = max(most, -least)
    samples = np.concatenate(parts).astype(np.float32, copy=False)
    return Sound(samples / np.float32(peak) if peak > 1 else samples, own, channels, frames)


def _kind(data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise DataError("file_too_large", f"a sound file has at most {MAX_FILE_BYTES >> 20} MB")
    kind = kind_of(data)
    if kind is None:
        what = "not a sound of an allowed format" if data else "an empty file; a sound is of an allowed format"
        raise DataError("unsupported_type", f"{what} ({_ALLOWED}), told by its first bytes")
    if kind == "WAV" and data[:4] == b"RIFF" and len(data) >= 12:
        # libsndfile would read what is there and say nothing. 0 and 2^32 - 1 are written by recorders to a pipe.
        promised = struct.unpack("<I", data[4:8])[0]
        if promised not in (0, 2**32 - 1) and promised + 8 > len(data) + 1:
            raise DataError("decode_error", f"truncated: {promised + 8:,} bytes promised, {len(data):,} are there")
    return kind


@contextmanager
def _opened(data: bytes, kind: str) -> Iterator[Any]:
    """The library's errors, whatever their class, in our words."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            yield file
    except (soundfile.SoundFileError, RuntimeError, OSError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).rpartition("object at ")[2].partition(">: ")[2] or str(error) or type(error).__name__
        raise DataError("decode_error", f"the {kind} data is broken: {reason[:200]}") from error


def _check_header(file: Any, size: int, kind: str) -> None:
    """What a header claims, before anything is decoded."""
    if not RATES[0] <= file.samplerate <= RATES[1]:
        message = f"{file.samplerate:,} Hz; sample rates from {RATES[0]:,} to {RATES[1]:,} Hz are read"
        raise DataError("unsupported_rate", message)
    if file.channels > MAX_CHANNELS:
        raise DataError("too_many_channels", f"{file.channels} channels; at most {MAX_CHANNELS} are read")
    if kind in _STREAMS:
        return
    if file.frames == 0:
        raise DataError("too_short", "the file holds no samples")
    _check_amount(file.frames, file, size)


def _check_amount(frames: int, file: Any, size: int) -> None:
    values = frames * file.channels
    if frames > MAX_SECONDS * file.samplerate or values > MAX_VALUES:
        message = f"a clip has at most {MAX_SECONDS // 60} minutes and {MAX_VALUES:,} samples in all its channels"
        raise DataError("too_long", f"{message}; cut it into pieces")
    if values > SMALL and 2 * values > MAX_RATIO * size:
        raise DataError("audio_bomb", f"the sound is packed more than {MAX_RATIO:,} times")


def _check_length(frames: int, rate: int) -> None:
    if 1000 * frames < LEAST_MILLISECONDS * rate:
        message = f"{1000 * frames / rate:.1f} ms; a clip has at least {LEAST_MILLISECONDS} ms"
        raise DataError("too_short", message)


def _blocks(file: Any, size: int) -> Iterator[NDArray[np.float32]]:
    """(n,) the mean of the channels, block by block. A header may lie of how many there are: they are counted."""
    import numpy as np

    done = 0
    while True:
        block = file.read(_BLOCK, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        done += len(block)
        _check_amount(done, file, size)
        if not np.isfinite(block).all():
            raise DataError("not_finite", "the sound holds values that are not finite numbers")
        yield block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else np.ascontiguousarray(block[:, 0])
