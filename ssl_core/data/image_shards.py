"""Prepared images: one flat uint8 array of square pictures, their labels, and the dataset's mean and deviation.

N pictures, C channels, S side of the stored square.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import pictures, rows, shards
from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Raw, Unit
    from ssl_core.modalities.image import ImageModality

MARGIN = 8 / 7
"""Pictures with more pixels than needed are stored this much larger (256 for 224), so that crops keep detail."""


def storage_side(size: int, width: int, height: int) -> int:
    """Side of the stored square for pictures of that median width and height."""
    wide = round(size * MARGIN)
    return wide if min(width, height) >= wide else size


def prepare(settings: ImageModality, dataset: Path, out: Path, progress: Callable[[int, int], None]) -> None:
    """Write `pixels.bin`, `labels.bin` and `meta.json` to `out`.

    Raises:
        DataError: `empty_dataset`; a picture that ingest accepted but does not decode names its row.
    """
    import numpy as np

    measured = rows.profile(dataset)
    out.mkdir(parents=True, exist_ok=True)
    size, channels = settings.size, settings.channels
    side = size
    if settings.fit == "crop":
        side = storage_side(size, int(measured["width"]), int(measured["height"]))
    total, done = int(measured["rows"]), 0
    sums, squares = np.zeros(channels), np.zeros(channels)
    with shards.ArrayWriter(out / "pixels.bin", "uint8") as writer:
        for batch in rows.batches(dataset, ["image", "source"], rows=64):
            for data, source in zip(batch["image"], batch["source"], strict=True):
                picture = _stored_square(data, source, (side, settings.fit), channels)
                writer.append(picture.transpose(2, 0, 1))
                values = picture.reshape(-1, channels) / 255.0
                sums += values.mean(0)
                squares += (values**2).mean(0)
                done += 1
            progress(done, total)
    if done == 0:
        raise DataError("empty_dataset", "the dataset has no rows")
    mean = sums / done
    # A dataset of one flat colour has no deviation; dividing by 1/255 keeps it finite.
    std = np.sqrt(np.maximum(squares / done - mean**2, 0)).clip(min=1 / 255)
    shards.write_labels(out, rows.labels(dataset, measured["classes"]))
    facts = {"channels": channels, "size": size, "side": side, "mean": mean.tolist(), "std": std.tolist()}
    if settings.fit != "crop":
        facts["fit"] = settings.fit
    meta = {"modality": "image", "documents": done, "classes": measured["classes"], "facts": facts}
    shards.write_meta(out, meta)


def _stored_square(data: bytes, source: str, how: tuple[int, str], channels: int) -> NDArray[np.uint8]:
    try:
        return pictures.fitted(pictures.decode(data, channels, how[0]), *how)
    except DataError as error:
        raise DataError(error.code, error.message, source) from error


class ImageSource:
    """Prepared images, opened. Attributes as in `ssl_core.modalities.base.Source`."""

    def __init__(self, prepared: Path) -> None:
        import numpy as np

        meta = shards.read_meta(prepared)
        self.facts: dict[str, Any] = meta["facts"]
        self.classes: list[str] = meta["classes"]
        count, side, channels = meta["documents"], self.facts["side"], self.facts["channels"]
        self._pixels = shards.map_array(prepared / "pixels.bin", "uint8", (count, channels, side, side))
        self._mean = np.asarray(self.facts["mean"], dtype=np.float32)
        self._std = np.asarray(self.facts["std"], dtype=np.float32)
        self.labels = shards.map_labels(prepared, count)

    def count(self, unit: Unit) -> int:
        """Pictures, whatever the unit."""
        return len(self._pixels)

    def lengths(self) -> NDArray[np.int64]:
        """(N,) ones."""
        import numpy as np

        return np.ones(len(self._pixels), dtype=np.int64)

    def read(self, unit: Unit, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None = None) -> Raw:
        """`pixels` (B, C, S, S) uint8, and the dataset's `mean` and `std` (B, C) float32, of values 0 to 1."""
        import numpy as np

        shape = (len(indices), len(self._mean))
        return {
            "pixels": self._pixels[indices],
            "mean": np.broadcast_to(self._mean, shape).copy(),
            "std": np.broadcast_to(self._std, shape).copy(),
        }
