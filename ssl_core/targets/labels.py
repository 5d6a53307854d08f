"""Several classes for each row, or none of them."""

from __future__ import annotations

import json
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
SEPARATOR = "|"
_NEEDED = 'a list of names, or a text such as "a|b"'
_ROWS = 8192


class Labels(Target):
    """`labels`: a list of names or, in a cell of a table, names with `|` between them, or the list as JSON.

    A name that stands there twice counts once. An empty list (`[]` in a cell) says that the row is of none of the
    classes; `null` and an empty cell, that they are not known.
    """

    name: Literal["labels"] = "labels"
    columns: ClassVar[tuple[str, ...]] = ("labels",)

    @classmethod
    def usual(cls, modality: type[Modality]) -> dict[str, tuple[str, ...]]:
        """Of a protein `labels` are its residues' tags: there only the upload can say that they are its classes."""
        return {"labels": () if modality.part == "residue" else ("labels",)}

    @classmethod
    def read(cls, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]) -> Any:
        """Names in alphabetical order; None where not known. Raises DataError `invalid_labels`, `encoding_error`."""
        given = values.get("labels")
        if given is None or given == "":
            return None
        if isinstance(given, str):
            given = _cell(given)
        elif isinstance(given, int) and not isinstance(given, bool):
            given = [given]
        if not isinstance(given, list):
            raise DataError("invalid_labels", f"the labels are a {type(given).__name__}; needed: {_NEEDED}")
        return sorted({_name(value, place) for place, value in enumerate(given, 1)})

    @classmethod
    def arrow(cls) -> Any:
        """A list of strings."""
        import pyarrow

        return pyarrow.list_(pyarrow.string())

    @classmethod
    def size(cls, value: Any) -> int:
        """A few bytes a name."""
        return 4 + sum(4 + len(name) for name in value or ())

    @classmethod
    def named(cls, value: Any) -> set[str]:
        """The row's classes."""
        return set(value or ())

    @classmethod
    def tally(cls) -> Tally:
        """Counts rows, and names by class."""
        return _Counts()

    @classmethod
    def write(cls, dataset: Path, out: Path, modality: Modality) -> None:
        """Class numbers of each row; whether they are known in `several.known.bin`."""
        from ssl_core.data import ragged, rows, shards

        classes = rows.profile(dataset)["targets"]["labels"]["classes"]
        with shards.ArrayWriter(out / "several.known.bin", "uint8") as known:
            ragged.write(out, "several", "int16", _numbered(dataset, classes, known))
            count = known.count
        written = json.dumps({"rows": count, "classes": classes}, ensure_ascii=False)
        (out / "several.json").write_text(written, encoding="utf-8")

    @classmethod
    def is_in(cls, prepared: Path) -> bool:
        """`labels.bin` is what rows of one class have."""
        return (prepared / "several.json").exists()

    @classmethod
    def open(cls, prepared: Path, classes: list[str] | None = None) -> Targets:
        """`labels` (B, C) bool: of which classes a document is."""
        return _LabelShards(prepared, classes)


def _cell(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(SEPARATOR)]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("invalid_labels", f"{text[:40]!r} is not JSON; needed: {_NEEDED}") from error


def _name(value: Any, place: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        kind = type(value).__name__
        raise DataError("invalid_labels", f"label {place} is a {kind}; allowed: strings and whole numbers")
    name = str(value)
    if not name or len(name) > MAX_CHARACTERS or "\x00" in name:
        raise DataError("invalid_labels", f"label {place} must have 1 to {MAX_CHARACTERS} characters and no NUL")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("encoding_error", f"label {place} is not valid UTF-8") from error
    return name


def _numbered(dataset: Path, classes: list[str], known: Any) -> Iterator[NDArray[np.int16]]:
    import numpy as np

    from ssl_core.data import rows

    index = {name: number for number, name in enumerate(classes)}
    for batch in rows.batches(dataset, ["labels"], _ROWS):
        known.append(np.array([names is not None for names in batch["labels"]], dtype=np.uint8))
        for names in batch["labels"]:
            yield np.array([index[name] for name in names or ()], dtype=np.int16)


class _LabelShards:
    """Attributes and methods as in `ssl_core.targets.base.Targets`."""

    def __init__(self, prepared: Path, classes: list[str] | None) -> None:
        import numpy as np

        from ssl_core.data import ragged, shards

        told = json.loads((prepared / "several.json").read_text(encoding="utf-8"))
        mine: list[str] = told["classes"]
        self.classes = mine if classes is None else classes
        numbers = {name: number for number, name in enumerate(self.classes)}
        # The last entry is what -1 points at.
        self._renumbered = np.array([*(numbers.get(name, -1) for name in mine), -1], dtype=np.int64)
        self._known: NDArray[np.uint8] = shards.map_array(prepared / "several.known.bin", "uint8", (told["rows"],))
        self._rows = ragged.Ragged(prepared, "several", "int16")

    def groups(self) -> NDArray[np.int64]:
        """The rarest class of each row, behind all classes for a row of none, so that a share has some of each.

        A row whose classes are all strange to `classes` is left out: of what is asked, nothing is known of it.
        """
        import numpy as np

        everyone = self._table(np.arange(len(self._known)))
        counts = np.bincount(everyone[everyone >= 0], minlength=len(self.classes))
        # What -1 points at, the last, is never the rarest of a row that has a class.
        rarity = np.append(counts, np.iinfo(np.int64).max)
        found = np.full(len(everyone), -1, dtype=np.int64)
        if everyone.shape[1]:
            found = everyone[np.arange(len(everyone)), rarity[everyone].argmin(1)]
        found = np.where(self._rows.lengths() > 0, found, len(self.classes))
        return np.where(self._known > 0, found, -1)

    def _table(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, L) the classes of those rows, -1 behind them."""
        table: NDArray[np.int64] = self._renumbered[self._rows.read(indices, -1)]
        return table

    def read(self, indices: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        import numpy as np

        table = self._table(indices)
        # One column more takes what is none of the classes.
        flags = np.zeros((len(indices), len(self.classes) + 1), dtype=bool)
        np.put_along_axis(flags, table, True, axis=1)
        return {"labels": flags[:, :-1]}


class _Counts:
    """Rows, and names by class."""

    def __init__(self) -> None:
        self._rows = 0
        self._counts: Counter[str] = Counter()

    def add(self, value: Any) -> None:
        if value is None:
            return
        self._rows += 1
        self._counts.update(value)
        if len(self._counts) > MAX_CLASSES:
            raise DataError("too_many_classes", f"more than {MAX_CLASSES:,} different labels", "columns.labels")

    def summary(self) -> dict[str, Any]:
        classes = sorted(self._counts)
        return {"rows": self._rows, "classes": classes, "class_counts": {n: self._counts[n] for n in classes}}
