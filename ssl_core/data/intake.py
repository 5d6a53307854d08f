"""What every reader of uploads shares: the canonical row, the report of bad ones, and the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.errors import DataError
from ssl_core.targets import TARGETS, Target

if TYPE_CHECKING:
    from ssl_core.modalities.base import Modality

MAX_TEXT_BYTES = 4 * 2**20
"""Longest document, and longest line of a file, in UTF-8 bytes."""
MAX_LABEL_CHARACTERS = 200
KEPT_ERRORS = 1000
LABEL_COLUMNS = ("label", "class", "category")


@dataclass(frozen=True)
class Row:
    """One good row on its way to the canonical dataset.

    Attributes:
        content: by column of its modality: UTF-8 of a text, the bytes of a picture file.
        label: its class, or None.
        source: `file:row`, where it came from.
        targets: canonical values by name of the target; a target that the upload has not is absent.
    """

    content: dict[str, bytes]
    label: str | None
    source: str
    targets: dict[str, Any] = field(default_factory=dict)


@dataclass
class BadRows:
    """Rows that were refused: all counted, the first 1,000 kept as `{"file", "row", "code", "message"}`.

    Attributes:
        count: rows.
        parts: of rows that were kept, such as a box of a picture.
    """

    count: int = 0
    parts: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: str, row: int, error: DataError, part: bool = False) -> None:
        """Report row number `row` (from 1) of `file`; `part`: of a row that is kept."""
        self.count += not part
        self.parts += part
        if len(self.kept) < KEPT_ERRORS:
            self.kept.append({"file": file[:400], "row": row, "code": error.code, "message": error.message[:1000]})


@dataclass(frozen=True)
class Upload:
    """An uploaded file and what its owner said of it.

    Attributes:
        path: where it lies.
        name: what it was called.
        columns: our column name to theirs: `label`, and the columns of the modalities.
        modality: its name; None = told from the bytes.
        bad: where refused rows go.
    """

    path: Path
    name: str
    columns: dict[str, str]
    modality: str | None
    bad: BadRows


@dataclass
class Reading:
    """Rows of an upload as they are read.

    Attributes:
        modality: what they are.
        rows: the good ones, in the order of the file.
        total: units of work in the whole upload (bytes or files).
        done: units so far.
        ignored: columns of a table that are neither content nor label nor target.
        targets: which its rows have.
    """

    modality: type[Modality]
    rows: Iterator[Row]
    total: int
    done: int = 0
    ignored: list[str] = field(default_factory=list)
    targets: TargetColumns = field(default_factory=lambda: TargetColumns({}))


@dataclass(frozen=True)
class TargetColumns:
    """Where an upload has its targets: their columns by ours, by name of the target."""

    by_name: dict[str, dict[str, str]]

    @classmethod
    def found(cls, modality: type[Modality], found: list[str], mapping: dict[str, str]) -> TargetColumns:
        """Those that the mapping names, else what uploads usually call them; no column is taken twice.

        Raises:
            DataError: `missing_column`; `unsupported_target` where the mapping wants one that the modality cannot have.
        """
        taken = set(mapping.values())
        for ours, column in modality.columns.items():
            taken.add(choose_column(ours, found, mapping, column.usual) or "")
        taken.add(label_column(found, mapping) or "")
        chosen = {}
        for name, kind in TARGETS.items():
            columns = cls._of(kind, modality, [each for each in found if each not in taken], (found, mapping))
            if columns:
                chosen[name] = columns
                taken.update(columns.values())
        return cls(chosen)

    @staticmethod
    def _of(
        kind: type[Target], modality: type[Modality], free: list[str], told: tuple[list[str], dict[str, str]]
    ) -> dict[str, str]:
        found, mapping = told
        usual, first = kind.usual(modality), kind.columns[0]
        taken = {name.lower() for name in found} - {name.lower() for name in free}
        if not usual:
            if first in mapping:
                name = modality.model_fields["name"].default
                message = f"rows of {name} cannot have {first}; leave it out"
                raise DataError("unsupported_target", message, f"columns.{first}")
            return {}
        chosen = {}
        for ours in kind.columns:
            names = tuple(name for name in usual.get(ours, ()) if kind.beside.get(name) in (None, *taken))
            theirs = choose_column(ours, found, mapping, ()) or choose_column(ours, free, {}, names)
            if theirs is not None:
                chosen[ours] = theirs
        return chosen if first in chosen else {}

    def read(
        self, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]
    ) -> dict[str, Any]:
        """Canonical values of a row, `values` by their columns. Raises DataError."""
        return {
            name: TARGETS[name].read(
                {ours: values.get(theirs) for ours, theirs in columns.items()}, content, modality
            )
            for name, columns in self.by_name.items()
        }

    def theirs(self) -> list[str]:
        """Every column of the upload that they are read from."""
        return [theirs for columns in self.by_name.values() for theirs in columns.values()]


def clean_label(value: Any) -> str | None:
    """A label as a string; None for nothing. Whole numbers and booleans are written out.

    Raises:
        DataError: `invalid_label`.
    """
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise DataError("invalid_label", f"a label is a string or a number, not a {type(value).__name__}")
    label = str(value)
    if len(label) > MAX_LABEL_CHARACTERS or "\x00" in label:
        raise DataError("invalid_label", f"a label has at most {MAX_LABEL_CHARACTERS} characters and no NUL")
    try:
        label.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("encoding_error", "the label is not valid UTF-8") from error
    return label


def choose_column(ours: str, found: list[str], mapping: dict[str, str], usual: tuple[str, ...]) -> str | None:
    """Which of the columns `found` is `ours`: the mapped one, else the first usual name, whatever its case.

    Raises:
        DataError: `missing_column`, the mapping names a column that is not there.
    """
    if ours in mapping:
        if mapping[ours] not in found:
            listed = ", ".join(found[:20])
            raise DataError("missing_column", f"no column {mapping[ours]!r}; found: {listed}", f"columns.{ours}")
        return mapping[ours]
    lowered = {name.lower(): name for name in reversed(found)}
    return next((lowered[name] for name in usual if name in lowered), None)


def label_column(found: list[str], mapping: dict[str, str]) -> str | None:
    """Which column holds class labels: not one that the mapping says is something else. Raises as `choose_column`."""
    if "label" in mapping:
        return choose_column("label", found, mapping, ())
    others = set(mapping.values())
    return choose_column("label", [name for name in found if name not in others], {}, LABEL_COLUMNS)


def claimed(candidates: list[type[Modality]], found: list[str], mapping: dict[str, str]) -> type[Modality]:
    """Whose table it is: of the modalities that find all of their columns the one with the most, else the catch-all.

    Raises:
        DataError: as `choose_column`.
    """
    if len(candidates) == 1:
        return candidates[0]
    fitting = [
        one for one in candidates
        if all(choose_column(ours, found, mapping, column.usual) for ours, column in one.columns.items())
    ]  # fmt: skip
    spare = next((one for one in candidates if one.catch_all), candidates[0])
    return max(fitting, key=lambda one: len(one.columns), default=spare)


def left_over(
    modality: type[Modality], found: list[str], mapping: dict[str, str], targets: TargetColumns
) -> list[str]:
    """Columns that no row takes anything from."""
    wanted = {ours: column.usual for ours, column in modality.columns.items()}
    taken = {
        choose_column(ours, found, mapping, usual)
        for ours, usual in wanted.items()
        if mapping.get(ours) in (None, *found)
    }
    label = label_column(found, mapping) if mapping.get("label") in (None, *found) else None
    taken.update([label, *targets.theirs()])
    return [name for name in found if name not in taken] if len(found) > 1 else []


def content_columns(modality: type[Modality], found: list[str], mapping: dict[str, str]) -> dict[str, str]:
    """Our columns to theirs; the only one of a table is the only one of a modality.

    Raises:
        DataError: `missing_column`.
    """
    lone = found[0] if len(found) == len(modality.columns) == 1 else None
    chosen = {}
    for ours, column in modality.columns.items():
        theirs = choose_column(ours, found, mapping, column.usual) or lone
        if theirs is None:
            listed = ", ".join(found[:20]) or "none"
            message = f'which column is the {ours}? Say it with columns={{"{ours}": "..."}}; found: {listed}'
            raise DataError("missing_column", message, f"columns.{ours}")
        chosen[ours] = theirs
    return chosen
