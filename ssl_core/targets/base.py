"""The base of every target: what a row may be labelled with beside its class. Imports without torch or numpy.

The walk of a target: a column of a table, or a line of an archive's table of contents -> `read` (checked against the
row's content) -> a column `name` of the canonical row files -> `write` (flat arrays beside the content's shards, once
per dataset and settings) -> `open` -> `Batch.targets` of every batch of a run whose task names it.

Class labels are no target of this kind: a row's `label` came first and every modality keeps it by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ssl_core.values import Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Modality


TARGET = "target."
"""Targets travel with a slice's raw arrays, under names that begin so."""


class Tally(Protocol):
    """Measures the values of a dataset, row by row, in flat memory."""

    def add(self, value: Any) -> None:
        """One row's canonical value; None = it has none. Raises DataError with a `param` for what ends an ingest."""

    def summary(self) -> dict[str, Any]:
        """Fields of `ssl_core.spec.TargetFacts`; what no field is for goes into its `numbers`."""


class Targets(Protocol):
    """The targets of prepared data, opened."""

    classes: list[str]
    """What class numbers in them count; empty where there are none."""

    def groups(self) -> NDArray[np.int64]:
        """(documents,) -1 = a row without this target; else the stratum that a held-out share is drawn from."""

    def read(self, indices: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        """Arrays of those documents, first dimension B, which become `Batch.targets`.

        Where rows differ in size they are filled up behind: -1 in whole numbers, NaN in others, False in booleans."""


class Target(Value):
    """A frozen value, one file in this folder, found by the same scan as objectives. All its methods are the class's.

    Bad values raise `DataError`; the readers report it with its file and row and go on.
    """

    name: str
    columns: ClassVar[tuple[str, ...]]
    """Our columns that it is read from, which `columns` of an upload may name; the first is its own name."""

    beside: ClassVar[dict[str, str]] = {}
    """Usual names that hold only where the column beside them, of that name, is taken for something else."""
    is_text: ClassVar[bool] = False
    """Its values are texts as the content is: a tokenizer made for the dataset learns from both."""

    @classmethod
    def usual(cls, modality: type[Modality]) -> dict[str, tuple[str, ...]]:
        """What uploads of that modality call each of `columns`, best first, taken without being asked.

        A column may have no usual name: `()`. An empty dict: rows of that modality cannot carry this target."""
        raise NotImplementedError

    @classmethod
    def read(cls, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]) -> Any:
        """The canonical value of one row, None where it has none.

        Args:
            values: by our columns, those that the upload has; a cell of a table of text is a string.
            content: the row's, checked.
            modality: whose row it is.

        Raises:
            DataError: what is wrong, and what is allowed.
        """
        raise NotImplementedError

    @classmethod
    def arrow(cls) -> Any:
        """The pyarrow type of its column in the row files."""
        raise NotImplementedError

    @classmethod
    def size(cls, value: Any) -> int:
        """Rough bytes of a canonical value: row files are cut by them."""
        return 8

    @classmethod
    def tally(cls) -> Tally:
        """An empty one."""
        raise NotImplementedError

    @classmethod
    def named(cls, value: Any) -> set[str]:
        """The classes in a canonical value; here: a target that has none."""
        return set()

    @classmethod
    def preview(cls, value: Any) -> Any:
        """What a person would look at, as JSON; here: all of it."""
        return value

    @classmethod
    def write(cls, dataset: Path, out: Path, modality: Modality) -> None:
        """Write its shards of a canonical folder to `out`, which holds the content's already."""
        raise NotImplementedError

    @classmethod
    def is_in(cls, prepared: Path) -> bool:
        """Whether `write` wrote there; here: a file `<name>.json`."""
        return (prepared / f"{cls.model_fields['name'].default}.json").exists()

    @classmethod
    def open(cls, prepared: Path, classes: list[str] | None = None) -> Targets:
        """Memory-map what `write` wrote.

        Args:
            prepared: with the shards.
            classes: count in these (a model's), not in the dataset's own; what is not among them is no target.
        """
        raise NotImplementedError
