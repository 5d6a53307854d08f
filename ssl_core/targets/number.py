"""A number for each row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ssl_core.errors import DataError
from ssl_core.targets.base import Tally, Target, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Modality

LARGEST = 1e30
"""Squares of numbers beyond would not fit 32 bits, in which they are learned."""
_ROWS = 8192


class Number(Target):
    """`number`: finite; `null` or an empty cell is none.

    Only a column of that name is taken unasked, for a column of figures may be anything: that a column `label` holds
    numbers to learn and not classes is said by `columns={"number": "label"}`.
    """

    name: Literal["number"] = "number"
    columns: ClassVar[tuple[str, ...]] = ("number",)

    @classmethod
    def usual(cls, modality: type[Modality]) -> dict[str, tuple[str, ...]]:
        """Rows of every modality can have one."""
        return {"number": ("number",)}

    @classmethod
    def read(cls, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]) -> Any:
        """A float, or None. Raises DataError `invalid_number`."""
        given = values.get("number")
        if given is None or given == "":
            return None
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            raise DataError("invalid_number", f"the number is a {type(given).__name__}; a finite number is needed")
        try:
            number = float(given)
        except (ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= LARGEST:
            raise DataError("invalid_number", f"{str(given)[:40]!r} is not a finite number of at most {LARGEST:.0e}")
        return number

    @classmethod
    def arrow(cls) -> Any:
        """64 bits."""
        import pyarrow

        return pyarrow.float64()

    @classmethod
    def tally(cls) -> Tally:
        """Rows, and the least, greatest, mean and deviation of their numbers."""
        return _Moments()

    @classmethod
    def write(cls, dataset: Path, out: Path, modality: Modality) -> None:
        """`number.bin`, NaN for none."""
        from ssl_core.data import shards

        with shards.ArrayWriter(out / "number.bin", "float64") as writer:
            for part in _parts(dataset):
                writer.append(part)
        (out / "number.json").write_text(json.dumps({"rows": writer.count}), encoding="utf-8")

    @classmethod
    def open(cls, prepared: Path, classes: list[str] | None = None) -> Targets:
        """`number` (B,) float64."""
        return _NumberShards(prepared)


def _parts(dataset: Path) -> Iterator[NDArray[np.float64]]:
    import numpy as np

    from ssl_core.data import rows

    for batch in rows.batches(dataset, ["number"], _ROWS):
        yield np.array([math.nan if value is None else value for value in batch["number"]], dtype=np.float64)


class _NumberShards:
    """Attributes and methods as in `ssl_core.targets.base.Targets`."""

    def __init__(self, prepared: Path) -> None:
        from ssl_core.data import shards

        count = json.loads((prepared / "number.json").read_text(encoding="utf-8"))["rows"]
        self.classes: list[str] = []
        self._values: NDArray[np.float64] = shards.map_array(prepared / "number.bin", "float64", (count,))

    def groups(self) -> NDArray[np.int64]:
        import numpy as np

        return np.where(np.isnan(self._values), -1, 0)

    def read(self, indices: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        return {"number": self._values[indices]}


class _Moments:
    """Welford's running mean and sum of squares, https://doi.org/10.1080/00401706.1962.10490022."""

    def __init__(self) -> None:
        self._rows, self._mean, self._squares = 0, 0.0, 0.0
        self._least, self._greatest = math.inf, -math.inf

    def add(self, value: Any) -> None:
        if value is None:
            return
        self._rows += 1
        before = value - self._mean
        self._mean += before / self._rows
        self._squares += before * (value - self._mean)
        self._least, self._greatest = min(self._least, value), max(self._greatest, value)

    def summary(self) -> dict[str, Any]:
        if self._rows == 0:
            return {"rows": 0}
        deviation = math.sqrt(self._squares / self._rows)
        found = {"min": self._least, "max": self._greatest, "mean": self._mean, "deviation": deviation}
        return {"rows": self._rows, "numbers": found}
