"""What a dataset is like, measured row by row while it is read: some twenty bytes of memory a row."""

from __future__ import annotations

import base64
import io
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from ssl_core.data import duplicates, pictures
from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.data.intake import ModalityName, Row

MAX_CLASSES = 10_000
PREVIEW_ROWS = 20
PREVIEW_CHARACTERS = 1000
PREVIEW_SIDE = 64
SKETCH_SIDE = 64
"""Pictures are decoded no larger than needed for hash and preview."""


class Profile(Protocol):
    """Rows in, their canonical columns out; at the end a summary."""

    def add(self, row: Row) -> dict[str, Any]:
        """Canonical columns of one more row. Raises DataError where its content is not usable."""

    def summary(self) -> dict[str, Any]:
        """`profile.json`, less the count of bad rows."""

    @property
    def preview(self) -> list[dict[str, Any]]:
        """The first rows, as a person would look at them."""


class _Labels:
    """Rows by class."""

    def __init__(self) -> None:
        self.rows = 0
        self._counts: Counter[str] = Counter()

    def add(self, label: str | None) -> None:
        self.rows += 1
        if label is None:
            return
        self._counts[label] += 1
        if len(self._counts) > MAX_CLASSES:
            raise DataError("too_many_classes", f"more than {MAX_CLASSES:,} different labels", "columns.label")

    def summary(self) -> dict[str, Any]:
        classes = sorted(self._counts)
        counts = {name: self._counts[name] for name in classes}
        return {"rows": self.rows, "labelled": sum(counts.values()), "classes": classes, "class_counts": counts}


def _lengths(values: array[int]) -> dict[str, int]:
    """Least, median, 95th percentile and greatest; the percentiles are values that occur."""
    import numpy as np

    sizes = np.sort(np.frombuffer(values, dtype=np.int32))
    last = len(sizes) - 1
    places = {"min": 0, "median": last // 2, "p95": round(last * 0.95), "max": last}
    return {name: int(sizes[place]) for name, place in places.items()}


def _near(marked: NDArray[np.bool_], fingerprints: array[int]) -> int:
    """Near duplicates that are not exact ones."""
    import numpy as np

    values = np.frombuffer(fingerprints, dtype=np.int64)[: len(marked)]
    fresh = np.zeros(len(values), dtype=np.bool_)
    fresh[np.unique(values, return_index=True)[1]] = True
    return int((marked & fresh).sum())


class TextProfile:
    """Of texts; lengths are characters."""

    def __init__(self) -> None:
        self._labels = _Labels()
        self._lengths, self._hashes = array("i"), array("q")
        self._sketches: list[NDArray[np.uint32]] = []
        self.preview: list[dict[str, Any]] = []

    def add(self, row: Row) -> dict[str, Any]:
        text = row.content.decode("utf-8")
        self._labels.add(row.label)
        self._lengths.append(len(text))
        self._hashes.append(duplicates.fingerprint(row.content))
        if len(self._sketches) < duplicates.SKETCHED_ROWS:
            self._sketches.append(duplicates.text_sketch(row.content))
        if len(self.preview) < PREVIEW_ROWS:
            self.preview.append({"text": text[:PREVIEW_CHARACTERS], "label": row.label, "source": row.source})
        return {"text": text, "label": row.label, "source": row.source}

    def summary(self) -> dict[str, Any]:
        return {
            "modality": "text", **self._labels.summary(), "characters": sum(self._lengths),
            "width": 0, "height": 0, "channels": 0, "lengths": _lengths(self._lengths),
            "exact_duplicates": duplicates.count_repeats(self._hashes),
            "near_duplicates": _near(duplicates.near_texts(self._sketches), self._hashes),
            "near_duplicates_examined": len(self._sketches),
        }  # fmt: skip


class ImageProfile:
    """Of pictures; lengths are their shorter sides in pixels. Every picture is decoded once, as a proof."""

    def __init__(self) -> None:
        self._labels = _Labels()
        self._widths, self._heights, self._shorter, self._hashes = array("i"), array("i"), array("i"), array("q")
        self._channels = 1
        self._sketches: list[int] = []
        self.preview: list[dict[str, Any]] = []

    def add(self, row: Row) -> dict[str, Any]:
        picture = pictures.examine(row.content, None, SKETCH_SIDE)
        stored = pictures.stored(row.content)
        channels = picture.array.shape[2]
        self._labels.add(row.label)
        self._widths.append(picture.width)
        self._heights.append(picture.height)
        self._shorter.append(min(picture.width, picture.height))
        self._hashes.append(duplicates.fingerprint(row.content))
        self._channels = max(self._channels, channels)
        if len(self._sketches) < duplicates.SKETCHED_ROWS:
            self._sketches.append(duplicates.picture_sketch(picture.array))
        size = {"width": picture.width, "height": picture.height}
        if len(self.preview) < PREVIEW_ROWS:
            thumbnail = _data_uri(picture.array)
            self.preview.append({"image": thumbnail, **size, "label": row.label, "source": row.source})
        return {"image": stored, **size, "channels": channels, "label": row.label, "source": row.source}

    def summary(self) -> dict[str, Any]:
        return {
            "modality": "image", **self._labels.summary(), "characters": 0,
            "width": _lengths(self._widths)["median"], "height": _lengths(self._heights)["median"],
            "channels": self._channels, "lengths": _lengths(self._shorter),
            "exact_duplicates": duplicates.count_repeats(self._hashes),
            "near_duplicates": _near(duplicates.near_pictures(self._sketches), self._hashes),
            "near_duplicates_examined": len(self._sketches),
        }  # fmt: skip


def of(modality: ModalityName) -> Profile:
    """An empty profile."""
    return TextProfile() if modality == "text" else ImageProfile()


def _data_uri(picture: NDArray[np.uint8]) -> str:
    """At most 64 x 64 pixels, as PNG."""
    from PIL import Image

    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
