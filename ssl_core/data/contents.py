"""An archive's own table of contents: a `metadata.jsonl`, `metadata.csv` or `captions.jsonl` that names its files and
tells of each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ssl_core.data.archives import MAX_MEMBER_BYTES, Member
from ssl_core.data.intake import LABEL_COLUMNS, choose_column, clean_label
from ssl_core.data.tables import json_object
from ssl_core.errors import DataError
from ssl_core.modalities.base import Modality

NAMES = ("metadata.jsonl", "metadata.csv", "captions.jsonl")
_FILE_COLUMNS = ("file_name", "file", "image", "audio", "path")


@dataclass(frozen=True)
class Entry:
    """A line of the table: `values` as it stands, `where` = (its file in the archive, line number from 1; of
    separated values the row's, the header aside)."""

    values: dict[str, Any]
    where: tuple[str, int]


@dataclass
class Table:
    """What an archive says of its files.

    Attributes:
        entries: by the path that they name; a file may have several, such as five captions of one picture.
        faults: lines that cannot be used, and why.
        fields: what all lines have between them.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    faults: list[tuple[tuple[str, int], DataError]] = field(default_factory=list)
    fields: dict[str, None] = field(default_factory=dict)

    def add(self, member: Member, columns: dict[str, str]) -> None:
        """Read one such file. Raises DataError `file_too_large`."""
        folder, _, base = member.name.rpartition("/")
        if member.size > MAX_MEMBER_BYTES:
            raise DataError("file_too_large", f"{base} has at most {MAX_MEMBER_BYTES >> 20} MB", member.name)
        for number, values in (_rows if base.endswith(".csv") else _lines)(member.read()):
            try:
                if isinstance(values, DataError):
                    raise values
                name = _file_of(values, columns)
            except DataError as error:
                self.faults.append(((member.name, number), error))
                continue
            self.fields |= dict.fromkeys(values)
            path = f"{folder}/{name}" if folder else name
            self.entries.setdefault(path, []).append(Entry(values, (member.name, number)))

    def check(self) -> None:
        """Raises DataError of the first fault: a table of labels with holes would mislabel silently."""
        for (file, line), error in self.faults:
            raise DataError(error.code, error.message, f"{file}:{line}") from error

    def tells(self, modality: type[Modality], columns: dict[str, str]) -> bool:
        """Whether it holds all that a row of the modality needs beside a file."""
        told = told_columns(modality)
        return bool(told) and all(
            choose_column(ours, list(self.fields), columns, modality.columns[ours].usual) for ours in told
        )


def _lines(data: bytes) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """JSON objects, or what is wrong with them, by line."""
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json_object(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield number, DataError("encoding_error", "not valid UTF-8")
        except DataError as error:
            yield number, error


def _rows(data: bytes) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """Separated values by the names in the header, or what is wrong with them, by row."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        yield 0, DataError("encoding_error", "not valid UTF-8")
        return
    csv.field_size_limit(MAX_MEMBER_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header, number = None, 0
    try:
        for record in reader:
            if header is None:
                header = [name.strip() for name in record]
            elif record:
                number += 1
                fits = len(record) == len(header)
                message = f"the row has {len(record)} fields, the header has {len(header)}"
                yield number, dict(zip(header, record, strict=True)) if fits else DataError("missing_field", message)
    except csv.Error as error:
        yield number + 1, DataError("invalid_row", f"not separated values: {error}")


def told_columns(modality: type[Modality]) -> list[str]:
    """Of a modality whose rows are a file and something said of it: what is said; of others nothing."""
    strings = [name for name, column in modality.columns.items() if not column.media]
    return strings if len(strings) < len(modality.columns) else []


def label_of(entry: Entry, columns: dict[str, str]) -> str | None:
    """Raises DataError `invalid_label`."""
    label = choose_column("label", list(entry.values), columns, LABEL_COLUMNS)
    return clean_label(entry.values[label]) if label else None


def told_of(entry: Entry, modality: type[Modality], columns: dict[str, str]) -> dict[str, Any]:
    """What a line says, by our columns. Raises DataError `missing_field`."""
    told = {}
    for ours in told_columns(modality):
        theirs = columns.get(ours) or choose_column(ours, list(entry.values), {}, modality.columns[ours].usual) or ours
        if theirs not in entry.values:
            listed = ", ".join(list(entry.values)[:20])
            raise DataError("missing_field", f"the line has no `{theirs}`; its fields: {listed}"[:500])
        told[ours] = entry.values[theirs]
    return told


def _file_of(values: dict[str, Any], columns: dict[str, str]) -> str:
    file = choose_column("file_name", list(values), columns, _FILE_COLUMNS)
    if file is None or not isinstance(values[file], str):
        raise DataError("missing_field", "a line needs `file_name`, a string")
    name: str = values[file]
    return name.removeprefix("./")
