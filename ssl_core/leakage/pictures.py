"""Pictures: candidates by two perceptual hashes, judged by what they show at 16 x 16.

Difference and cosine hashes: Zauner 2010, https://phash.org/docs/pubs/thesis_zauner.pdf; near duplicates between the
training and test pictures of CIFAR: Barz and Denzler 2020, https://arxiv.org/abs/1902.00423.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates
from ssl_core.leakage.base import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIDE = 16
_COLOURS = 4
"""The side at which colours are compared."""
_HASHES = 16
_STILL = 2.0
"""Standard deviation of grey values, of 255, below which a picture shows nothing."""
_DECODED = 64
_GREY = 0.8
"""Least correlation of grey values."""
_DRAWN = 16_384
"""Pairs of one dataset that tell what is usual in it."""
_MARGIN = 0.4
"""Of what is left between the usual and 1: near duplicates of CIFAR-10's pictures reach 0.74 and more (usual 0.34), two
written zeros 0.9 (usual 0.91, so 0.96 is asked for)."""


class Pictures(Kind):
    """Similarity is the correlation of grey edges at 16 x 16; grey values and colours must agree too.

    Edges tell two ships on one horizon apart, whose grey values correlate by 0.96; of two takes of one car, at another
    contrast and a pixel aside, they agree by 0.8.
    """

    width = _HASHES + _SIDE * _SIDE + 3 * _COLOURS * _COLOURS
    least = 0.7
    hopeful = 0.7

    def sketch(self, content: Mapping[str, Any]) -> tuple[NDArray[np.uint8], bool]:
        import numpy as np
        from PIL import Image

        from ssl_core.data import pictures

        array = pictures.examine(content["image"], None, _DECODED).array
        image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX))
        colours = np.asarray(image.convert("RGB").resize((_COLOURS, _COLOURS), Image.Resampling.BOX))
        hashes = np.array([duplicates.picture_sketch(array), cosine_hash(grey)], dtype=np.uint64).view(np.uint8)
        flat = float(np.asarray(image, dtype=np.float32).std()) < _STILL
        return np.concatenate([hashes, grey.reshape(-1), colours.reshape(-1)]), flat

    def bands(self, table: NDArray[np.uint8]) -> Iterator[NDArray[np.uint64]]:
        import numpy as np

        quarters = np.ascontiguousarray(table[:, :_HASHES]).view(np.uint16)
        for column in quarters.T:
            yield column.astype(np.uint64)

    def estimate(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
        import numpy as np

        grey = _correlation(_grey(one), _grey(other))
        alike = _correlation(_edges(one), _edges(other))
        # Correlation forgives any change of contrast: pictures of hardly any must agree in their values.
        split = _HASHES + _SIDE * _SIDE
        apart = np.abs(one[:, split:].astype(np.float32) - other[:, split:].astype(np.float32)).mean(1)
        return np.asarray(np.where((apart <= 20) & (grey >= _GREY), alike, 0).clip(0, 1), dtype=np.float32)

    def bar(self, table: NDArray[np.uint8]) -> float:
        """Where any two pictures are alike, as digits are, a near duplicate must stand out from them."""
        import numpy as np

        draw = np.random.default_rng(0)
        one, other = draw.integers(0, len(table), (2, _DRAWN))
        one, other = one[one != other], other[one != other]
        if not len(one):
            return self.least
        usual = float(np.quantile(_correlation(_edges(table[one]), _edges(table[other])), 0.999))
        return max(self.least, 1 - _MARGIN * (1 - usual))


def _grey(table: NDArray[np.uint8]) -> NDArray[np.float32]:
    import numpy as np

    return table[:, _HASHES : _HASHES + _SIDE * _SIDE].astype(np.float32)


def _edges(table: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 480) differences of neighbours, across and down."""
    import numpy as np

    grey = _grey(table).reshape(-1, _SIDE, _SIDE)
    sides = (np.diff(grey, axis=axis).reshape(len(grey), _SIDE * (_SIDE - 1)) for axis in (1, 2))
    return np.concatenate(list(sides), axis=1)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """(pairs,) of rows; 0 where one has no spread."""
    import numpy as np

    first, second = one - one.mean(1, keepdims=True), other - other.mean(1, keepdims=True)
    spread = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.asarray((first * second).sum(1) / np.maximum(spread, 1e-6), dtype=np.float32)


def cosine_hash(grey: NDArray[np.uint8]) -> int:
    """64 bits of a grey picture (16, 16): which of its 8 x 8 lowest frequencies lie above their median."""
    import numpy as np

    waves = _waves()
    low = (waves @ grey.astype(np.float64) @ waves.T).reshape(-1)
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "little")


@cache
def _waves() -> NDArray[np.float64]:
    """(8, 16) cosines."""
    import numpy as np

    places: NDArray[np.float64] = (2 * np.arange(_SIDE) + 1) * np.pi / (2 * _SIDE)
    return np.cos(np.arange(8)[:, None] * places[None, :])
