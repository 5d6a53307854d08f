"""Rows of plain text, JSON lines and separated values, streamed. Row numbers start at 1; a header is not a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from ssl_core.data.intake import (
    MAX_TEXT_BYTES,
    Reading,
    Row,
    TargetColumns,
    Upload,
    choose_column,
    claimed,
    clean_label,
    content_columns,
    label_column,
    left_over,
)
from ssl_core.data.lines import lines
from ssl_core.errors import DataError
from ssl_core.modalities.base import Modality

_TOO_LONG = f"a line has at most {MAX_TEXT_BYTES:,} bytes"
# JSON may write one character as six.
_LONGEST_JSON = 6 * MAX_TEXT_BYTES
_LOOKED_AT = 20
"""JSON lines whose fields are the columns of the file."""
_ENCODING = "not valid UTF-8; save the file as UTF-8"


def read(upload: Upload, kind: str, candidates: list[type[Modality]]) -> Reading:
    """Rows of a text file of that kind, `txt`, `jsonl` or `csv`, that is of one of those modalities.

    Raises:
        DataError: `missing_column`.
    """
    shown = _columns(upload, kind)
    found = shown[0] if shown else []
    modality = claimed(candidates, found, upload.columns)
    reading = Reading(modality, iter(()), total=upload.path.stat().st_size)
    # The first of some labelled rows need not be labelled.
    every = dict.fromkeys(name for row in shown for name in row)
    reading.targets = TargetColumns.found(modality, list(every), upload.columns)
    reading.ignored = left_over(modality, found, upload.columns, reading.targets)
    reading.rows = {"txt": _txt, "jsonl": _jsonl, "csv": _csv}[kind](upload, reading)
    return reading


def _columns(upload: Upload, kind: str) -> list[list[str]]:
    """The columns of the header, or of each of the first lines; a broken one shows none and is reported when read."""
    if kind == "txt":
        return []
    with upload.path.open("rb") as file:
        full = (line for _, line in lines(file, _LONGEST_JSON) if line and line.strip())
        first = list(islice(full, _LOOKED_AT if kind == "jsonl" else 1))
    found: list[list[str]] = []
    for line in first:
        try:
            shown = list(json_object(_decoded(line))) if kind == "jsonl" else _header(upload, _decoded(line))[0]
        except (DataError, csv.Error):
            shown = []
        found.append(shown)
    return found


def _numbered(upload: Upload, reading: Reading, file: IO[bytes], longest: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not too long; the others are reported."""
    for number, line in lines(file, longest):
        reading.done = file.tell()
        if line is None:
            upload.bad.add(upload.name, number, DataError("line_too_long", _TOO_LONG))
        else:
            yield number, line


def _txt(upload: Upload, reading: Reading) -> Iterator[Row]:
    (column,) = reading.modality.columns
    with upload.path.open("rb") as file:
        for number, line in _numbered(upload, reading, file, MAX_TEXT_BYTES):
            if not line.strip():
                continue
            try:
                content = reading.modality.from_row({column: _decoded(line).strip()})
            except DataError as error:
                upload.bad.add(upload.name, number, error)
                continue
            yield Row(content, None, f"{upload.name}:{number}")


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("encoding_error", f"{_ENCODING} (byte {error.start})") from error


def _jsonl(upload: Upload, reading: Reading) -> Iterator[Row]:
    with upload.path.open("rb") as file:
        for number, line in _numbered(upload, reading, file, _LONGEST_JSON):
            if not line.strip():
                continue
            try:
                value = json_object(_decoded(line))
                row = _from_object(value, reading, upload.columns, f"{upload.name}:{number}")
            except DataError as error:
                upload.bad.add(upload.name, number, error)
                continue
            yield row


def json_object(line: str) -> dict[str, Any]:
    """Raises DataError `invalid_json`, or `wrong_type` where the line is not an object."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError("invalid_json", f"not JSON: {error.msg} at character {error.pos + 1}"[:200]) from error
    except RecursionError as error:
        raise DataError("invalid_json", "its lists and objects are nested too deeply") from error
    except ValueError as error:
        raise DataError("invalid_json", "a number in it has too many digits") from error
    if not isinstance(value, dict):
        kinds = {list: "list", str: "string", bool: "true or false", type(None): "null"}
        raise DataError("wrong_type", f"a line is a JSON object, this one is a {kinds.get(type(value), 'number')}")
    return value


def _from_object(value: dict[str, Any], reading: Reading, columns: dict[str, str], source: str) -> Row:
    found, content, modality = list(value), {}, reading.modality
    for ours, column in modality.columns.items():
        theirs = columns.get(ours) or choose_column(ours, found, {}, column.usual) or ours
        if theirs not in value:
            listed = ", ".join(found[:20]) or "none"
            raise DataError("missing_field", f"the row has no `{theirs}`; its fields: {listed}"[:500])
        content[ours] = value[theirs]
    label = columns.get("label") or label_column(found, columns)
    cleaned, called = modality.from_row(content), clean_label(value.get(label)) if label else None
    return Row(cleaned, called, source, reading.targets.read(value, cleaned, modality))


def _csv(upload: Upload, reading: Reading) -> Iterator[Row]:
    # A quoted field may run over lines; the limit also ends a quote that nobody closes.
    csv.field_size_limit(MAX_TEXT_BYTES)
    with upload.path.open("rb") as file:
        # Surrogates carry bad bytes through the parser, so that the row they are in can be named.
        stream = (
            line.decode("utf-8", "surrogateescape") for _, line in _numbered(upload, reading, file, MAX_TEXT_BYTES)
        )
        first = next(stream, "")
        header, comma = _header(upload, first)
        columns = content_columns(reading.modality, header, upload.columns)
        label = label_column(header, upload.columns)
        _check_once(header, [*columns.values(), *([label] if label else []), *reading.targets.theirs()])
        for number, record in _records(upload, csv.reader(stream, delimiter=comma)):
            try:
                values = _values(record, header)
                content = reading.modality.from_row({ours: values[theirs] for ours, theirs in columns.items()})
                called = None if label is None else clean_label(values[label])
                targets = reading.targets.read(values, content, reading.modality)
                row = Row(content, called, f"{upload.name}:{number}", targets)
            except DataError as error:
                upload.bad.add(upload.name, number, error)
                continue
            yield row


def _header(upload: Upload, first: str) -> tuple[list[str], str]:
    """Names of the columns, and what separates them."""
    comma = _separator(upload.name, first)
    return [name.strip() for name in next(csv.reader([first], delimiter=comma), [])], comma


def _check_once(header: list[str], used: list[str]) -> None:
    """Raises DataError `duplicate_column`: nobody can tell which of two columns of one name is meant."""
    for name in used:
        if header.count(name) > 1:
            places = [str(at) for at, each in enumerate(header, 1) if each == name]
            message = f"columns {' and '.join(places)} are both called {name!r}: give one of them another name"
            raise DataError("duplicate_column", message, "columns")


def _separator(name: str, header: str) -> str:
    if name.lower().endswith(".tsv"):
        return "\t"
    return max(",\t;", key=header.count)


def _records(upload: Upload, reader: Any) -> Iterator[tuple[int, list[str]]]:
    number = 0
    while True:
        number += 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            upload.bad.add(upload.name, number, DataError("invalid_row", f"not separated values: {error}"))
            continue
        if record:
            yield number, record
        else:
            number -= 1


def _values(record: list[str], header: list[str]) -> dict[str, str]:
    """By column; of two unused columns with one name the first."""
    if len(record) != len(header):
        raise DataError("missing_field", f"the row has {len(record)} fields, the header has {len(header)}")
    return {name: value.strip() for name, value in zip(reversed(header), reversed(record), strict=True)}
