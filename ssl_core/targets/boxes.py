"""Objects in a picture: a class and a box each."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ssl_core.errors import DataError
from ssl_core.targets.base import Tally, Target, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Modality

MAX_CLASSES = 10_000
MAX_CHARACTERS = 200
MAX_BOXES = 10_000
"""Of one picture."""
_ROWS = 1024
_SIDES = ("x", "y", "width", "height")
_NEEDED = 'a list of objects {"label": name, "box": [x, y, width, height]} in pixels'


class Boxes(Target):
    """`boxes`: a list of `{"label", "box": [x, y, width, height]}`, in pixels of the picture, from its upper left.

    Archives bring them in COCO's `annotations.json` (see `ssl_core.data.coco`); tables in a column of such lists, or
    of the Hub's `{"bbox": [...], "category": [...]}`. A box that leaves the picture is cut to it; one that lies
    outside, or has no area, is an error. An empty list says that there is nothing in the picture, null that it is not
    known.
    """

    name: Literal["boxes"] = "boxes"
    columns: ClassVar[tuple[str, ...]] = ("boxes",)

    @classmethod
    def usual(cls, modality: type[Modality]) -> dict[str, tuple[str, ...]]:
        """Of pictures only."""
        return {"boxes": ("boxes", "objects")} if tuple(modality.columns) == ("image",) else {}

    @classmethod
    def read(cls, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]) -> Any:
        """Objects cut to the picture; None where not known. Raises DataError `invalid_boxes`."""
        from ssl_core.data import pictures

        given = values.get("boxes")
        if given is None or given == "":
            return None
        found = _listed(given)
        width, height = pictures.size_of(content["image"])
        made = []
        for place, each in enumerate(found, 1):
            try:
                made.append(checked(each, width, height))
            except DataError as error:
                raise DataError(error.code, f"object {place}: {error.message}") from error
        return made

    @classmethod
    def arrow(cls) -> Any:
        """A list of structs of a label and four numbers."""
        import pyarrow

        sides = [(name, pyarrow.float32()) for name in _SIDES]
        return pyarrow.list_(pyarrow.struct([("label", pyarrow.string()), *sides]))

    @classmethod
    def size(cls, value: Any) -> int:
        """Some twenty bytes an object."""
        return 4 + sum(20 + len(each["label"]) for each in value or ())

    @classmethod
    def named(cls, value: Any) -> set[str]:
        """The classes of its objects."""
        return {each["label"] for each in value or ()}

    @classmethod
    def tally(cls) -> Tally:
        """Counts pictures, and objects by class."""
        return _Counts()

    @classmethod
    def preview(cls, value: Any) -> Any:
        """As they are sent."""
        if value is None:
            return None
        return [{"label": each["label"], "box": [each[name] for name in _SIDES]} for each in value]

    @classmethod
    def write(cls, dataset: Path, out: Path, modality: Modality) -> None:
        """`boxes`: class number and corners as shares of the picture (x1, y1, x2, y2), float32; `boxes.sizes`."""
        from ssl_core.data import ragged, rows, shards

        classes = rows.profile(dataset)["targets"]["boxes"]["classes"]
        with (
            shards.ArrayWriter(out / "boxes.known.bin", "uint8") as known,
            shards.ArrayWriter(out / "boxes.sizes.bin", "int32") as sizes,
        ):
            ragged.write(out, "boxes", "float32", _numbered(dataset, classes, known, sizes))
            count = known.count
        told = json.dumps({"rows": count, "classes": classes}, ensure_ascii=False)
        (out / "boxes.json").write_text(told, encoding="utf-8")

    @classmethod
    def open(cls, prepared: Path, classes: list[str] | None = None) -> Targets:
        """`boxes` (B, L, 4) float32, corners as shares of the picture, NaN behind them; `kinds` (B, L) int64 their
        classes, -1 behind them; `sizes` (B, 2) int64, width and height of the picture in pixels."""
        return _BoxShards(prepared, classes)


def checked(given: Any, width: int, height: int) -> dict[str, Any]:
    """An object cut to a picture of that size. Raises DataError `invalid_boxes`."""
    if not isinstance(given, Mapping) or not {"label", "box"} <= set(given):
        raise DataError("invalid_boxes", f"it is {str(given)[:60]}; needed: {_NEEDED}")
    label, box = given["label"], given["box"]
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise DataError("invalid_boxes", f"its label is a {type(label).__name__}; allowed: strings and whole numbers")
    label = str(label)
    if not label or len(label) > MAX_CHARACTERS or "\x00" in label:
        raise DataError("invalid_boxes", f"its label must have 1 to {MAX_CHARACTERS} characters and no NUL")
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise DataError("invalid_boxes", f"its box is {str(box)[:60]}; needed: four finite numbers x, y, width, height")
    x, y, wide, high = (float(side) for side in box)
    told = f"[{', '.join(f'{side:g}' for side in (x, y, wide, high))}]"
    if wide <= 0 or high <= 0:
        raise DataError("invalid_boxes", f"its box {told} has no area; width and height are more than 0")
    left, top, right, bottom = max(0.0, x), max(0.0, y), min(float(width), x + wide), min(float(height), y + high)
    if right - left <= 0 or bottom - top <= 0:
        raise DataError("invalid_boxes", f"its box {told} lies outside the picture of {width} x {height}")
    return {"label": label, "x": left, "y": top, "width": right - left, "height": bottom - top}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _listed(given: Any) -> list[Any]:
    """Objects, from a list, JSON of one, or the Hub's columns."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise DataError("invalid_boxes", f"the boxes are not JSON; needed: {_NEEDED}") from error
    if isinstance(given, Mapping) and "bbox" in given:
        labels = next((given[name] for name in ("category", "categories", "label", "labels") if name in given), None)
        boxes = given["bbox"]
        if not isinstance(labels, list) or not isinstance(boxes, list) or len(labels) != len(boxes):
            raise DataError("invalid_boxes", "`bbox` and `category` are lists of the same length")
        given = [{"label": label, "box": box} for label, box in zip(labels, boxes, strict=True)]
    if not isinstance(given, list):
        raise DataError("invalid_boxes", f"the boxes are a {type(given).__name__}; needed: {_NEEDED}")
    if len(given) > MAX_BOXES:
        raise DataError("invalid_boxes", f"{len(given):,} objects in one picture; at most {MAX_BOXES:,}")
    return given


def _numbered(dataset: Path, classes: list[str], known: Any, sizes: Any) -> Iterator[NDArray[np.float32]]:
    import numpy as np

    from ssl_core.data import rows

    index = {name: number for number, name in enumerate(classes)}
    for batch in rows.batches(dataset, ["boxes", "width", "height"], _ROWS):
        known.append(np.array([objects is not None for objects in batch["boxes"]], dtype=np.uint8))
        pairs = list(zip(batch["width"], batch["height"], strict=True))
        sizes.append(np.array(pairs, dtype=np.int32).reshape(-1, 2))
        for objects, (width, height) in zip(batch["boxes"], pairs, strict=True):
            rows_of = [
                (index[each["label"]], each["x"] / width, each["y"] / height,
                 (each["x"] + each["width"]) / width, (each["y"] + each["height"]) / height)
                for each in objects or ()
            ]  # fmt: skip
            yield np.array(rows_of, dtype=np.float32).reshape(-1, 5)


class _BoxShards:
    """Attributes and methods as in `ssl_core.targets.base.Targets`."""

    def __init__(self, prepared: Path, classes: list[str] | None) -> None:
        import numpy as np

        from ssl_core.data import ragged, shards

        told = json.loads((prepared / "boxes.json").read_text(encoding="utf-8"))
        mine: list[str] = told["classes"]
        self.classes = mine if classes is None else classes
        numbers = {name: number for number, name in enumerate(self.classes)}
        # The last entry is what -1 points at.
        self._renumbered = np.array([*(numbers.get(name, -1) for name in mine), -1], dtype=np.int64)
        self._known: NDArray[np.uint8] = shards.map_array(prepared / "boxes.known.bin", "uint8", (told["rows"],))
        self._sizes: NDArray[np.int32] = shards.map_array(prepared / "boxes.sizes.bin", "int32", (told["rows"], 2))
        self._rows = ragged.Ragged(prepared, "boxes", "float32", 5)

    def groups(self) -> NDArray[np.int64]:
        """The rarest class in each picture, behind all classes for a picture of none: a share has some of each."""
        import numpy as np

        kinds = self._kinds(np.arange(len(self._known)))
        counts = np.bincount(kinds[kinds >= 0], minlength=len(self.classes))
        rarity = np.append(counts, np.iinfo(np.int64).max)
        found = np.full(len(kinds), len(self.classes), dtype=np.int64)
        if kinds.shape[1]:
            rarest = np.take_along_axis(kinds, rarity[kinds].argmin(1)[:, None], axis=1)[:, 0]
            found = np.where(rarest >= 0, rarest, len(self.classes))
        return np.where(self._known > 0, found, -1)

    def _kinds(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        table = self._rows.read(indices, -1.0)[:, :, 0].astype("int64")
        found: NDArray[np.int64] = self._renumbered[table]
        return found

    def read(self, indices: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        """What is of none of `classes` is left out: -1 among the kinds."""
        import numpy as np

        boxes = self._rows.read(indices, float("nan"))[:, :, 1:].copy()
        kinds = self._kinds(indices)
        boxes[kinds < 0] = np.nan
        return {"boxes": boxes, "kinds": kinds, "sizes": self._sizes[indices].astype(np.int64)}


class _Counts:
    """Pictures, and objects by class."""

    def __init__(self) -> None:
        self._rows = self._empty = 0
        self._counts: Counter[str] = Counter()

    def add(self, value: Any) -> None:
        if value is None:
            return
        self._rows += 1
        self._empty += not value
        self._counts.update(each["label"] for each in value)
        if len(self._counts) > MAX_CLASSES:
            raise DataError("too_many_classes", f"more than {MAX_CLASSES:,} different labels", "columns.boxes")

    def summary(self) -> dict[str, Any]:
        classes = sorted(self._counts)
        return {
            "rows": self._rows, "classes": classes, "class_counts": {name: self._counts[name] for name in classes},
            "numbers": {"objects": float(self._counts.total()), "pictures_without": float(self._empty)},
        }  # fmt: skip
