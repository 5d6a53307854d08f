"""What a dataset is like, measured row by row while it is read: some twenty bytes of memory a row."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates
from ssl_core.errors import DataError
from ssl_core.targets import TARGETS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.data.intake import Row
    from ssl_core.modalities.base import Modality

MAX_CLASSES = 10_000
PREVIEW_ROWS = 20


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


def spread(values: array[int]) -> dict[str, int]:
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


class Profile:
    """Rows in, their canonical columns out; at the end a summary."""

    def __init__(self, modality: type[Modality], targets: Iterable[str] = ()) -> None:
        self._modality = modality
        self._targets = {name: TARGETS[name].tally() for name in targets}
        self._labels = _Labels()
        self._lengths, self._hashes = array("i"), array("q")
        self._measures = {name: array("i") for name in modality.measures}
        self._sketches: list[Any] = []
        self.preview: list[dict[str, Any]] = []
        """The first rows, as a person would look at them."""

    def add(self, row: Row) -> dict[str, Any]:
        """Canonical columns of one more row. Raises DataError where its content is not usable."""
        seen = self._modality.examine(row.content)
        told = {"label": row.label, "source": row.source}
        self._labels.add(row.label)
        for name, tally in self._targets.items():
            tally.add(row.targets[name])
        self._lengths.append(seen.length)
        self._hashes.append(duplicates.fingerprint(b"".join(row.content.values())))
        for name, numbers in self._measures.items():
            numbers.append(seen.columns[name])
        if len(self._sketches) < duplicates.SKETCHED_ROWS:
            self._sketches.append(seen.sketch())
        if len(self.preview) < PREVIEW_ROWS:
            labelled = {name: TARGETS[name].preview(row.targets[name]) for name in self._targets}
            self.preview.append({**seen.preview(), **told, **labelled})
        return {**seen.columns, **told, **{name: row.targets[name] for name in self._targets}}

    def summary(self) -> dict[str, Any]:
        """`profile.json`, less the count of bad rows."""
        return {
            "modality": self._modality.model_fields["name"].default, **self._labels.summary(),
            "characters": 0, "width": 0, "height": 0, "channels": 0,
            **self._modality.facts(self._lengths, self._measures), "lengths": spread(self._lengths),
            "exact_duplicates": duplicates.count_repeats(self._hashes),
            "near_duplicates": _near(self._modality.near(self._sketches), self._hashes),
            "near_duplicates_examined": len(self._sketches),
            **({"targets": {name: tally.summary() for name, tally in self._targets.items()}} if self._targets else {}),
        }  # fmt: skip
