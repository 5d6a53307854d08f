"""Sounds: the signs of change of a coarse spectrogram, silence at either end aside.

After Haitsma and Kalker 2002, https://ismir2002.ismir.net/proceedings/02-FP04-2.pdf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates
from ssl_core.leakage.base import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BITS = 256
_SILENT = 1e-4
_QUIET = 0.02
"""Of a clip's loudest moment: what is quieter at its ends is cut off, so that a shifted clip is found too."""
_MOMENT = 80
"""Samples over which loudness is measured: 10 ms."""


class Sounds(Kind):
    """Similarity is the share of equal signs of 256: takes of one spoken word differ in 26 and more, an MP3 in 14."""

    width = _BITS // 8
    least = 1 - duplicates.SOUND_DISTANCE / _BITS
    hopeful = least

    def sketch(self, content: Mapping[str, Any]) -> tuple[NDArray[np.uint8], bool]:
        import numpy as np

        from ssl_core.data import sound_rows, sounds

        samples = sounds.decode(content["audio"], sound_rows.SKETCH_RATE).samples
        silent = not len(samples) or float(samples.max() - samples.min()) < _SILENT
        picture = sound_rows.spectrogram(trimmed(samples), 16, 17)
        return duplicates.sound_sketch(picture).view(np.uint8), silent

    def bands(self, table: NDArray[np.uint8]) -> Iterator[NDArray[np.uint64]]:
        import numpy as np

        for column in np.ascontiguousarray(table).view(np.uint16).T:
            yield column.astype(np.uint64)

    def estimate(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
        import numpy as np

        return np.asarray(1 - np.bitwise_count(one ^ other).sum(axis=1) / _BITS, dtype=np.float32)


def trimmed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(S,) a clip without the silence before and after it."""
    import numpy as np

    moments = len(samples) // _MOMENT
    if moments < 2:
        return samples
    loudness = np.abs(samples[: moments * _MOMENT]).reshape(moments, _MOMENT).max(axis=1)
    heard = np.flatnonzero(loudness > _QUIET * loudness.max())
    return samples[heard[0] * _MOMENT : (heard[-1] + 1) * _MOMENT] if len(heard) else samples
