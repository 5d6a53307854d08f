"""Rows of archives: files of one modality, flat, in one folder a class, or named in a `metadata.jsonl`.

An archive is walked twice: first for its names (safety, classes, metadata), then for its bytes; a tar has no other way
to know its classes before its first file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from os.path import commonpath
from typing import Any

from ssl_core.data import sniff
from ssl_core.data.archives import MAX_MEMBER_BYTES, Member, members
from ssl_core.data.intake import (
    LABEL_COLUMNS,
    Reading,
    Row,
    Upload,
    choose_column,
    clean_label,
)
from ssl_core.data.tables import json_object
from ssl_core.errors import DataError
from ssl_core.modalities.base import Modality

METADATA = "metadata.jsonl"
_JUNK = ("thumbs.db", "desktop.ini")
_FILE_COLUMNS = ("file_name", "file", "image", "path")


@dataclass
class _Contents:
    """What the first walk found.

    Attributes:
        count: files that are not junk.
        parents: their folders.
        modality: whose they are, by the first of them that one recognises.
        metadata: path to label, from `metadata.jsonl`; None without one.
    """

    count: int = 0
    parents: set[str] = field(default_factory=set)
    modality: type[Modality] | None = None
    metadata: dict[str, str | None] | None = None


def read(upload: Upload, kind: str, candidates: list[type[Modality]]) -> Reading:
    """Rows of an archive that is of one of those modalities.

    Raises:
        DataError: `unsafe_archive`, `archive_bomb`, `archive_invalid`, `empty_dataset`, `unsupported_type`, or of its
            metadata.
    """
    contents = _survey(upload, kind, candidates)
    if contents.count == 0:
        raise DataError("empty_dataset", "the archive holds no files", upload.name)
    if contents.modality is None:
        raise DataError("unsupported_type", "no file in the archive is of a kind that can be read", upload.name)
    reading = Reading(contents.modality, iter(()), total=contents.count)
    reading.rows = _rows(upload, kind, reading, contents)
    return reading


def _is_junk(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1].lower() in _JUNK


def _survey(upload: Upload, kind: str, candidates: list[type[Modality]]) -> _Contents:
    contents = _Contents(modality=candidates[0] if len(candidates) == 1 else None)
    for member in members(upload.path, kind):
        if _is_junk(member.name):
            continue
        folder, _, base = member.name.rpartition("/")
        if base == METADATA:
            contents.metadata = _metadata(member, folder, upload.columns)
            continue
        contents.count += 1
        contents.parents.add(folder)
        if contents.modality is None and member.size <= MAX_MEMBER_BYTES:
            head = member.read()[: sniff.HEAD]
            contents.modality = next((one for one in candidates if one.recognises(head)), None)
    return contents


def _metadata(member: Member, folder: str, columns: dict[str, str]) -> dict[str, str | None]:
    """Path of each file to its label.

    Raises:
        DataError: where a line is not usable; a table of contents with holes would mislabel silently.
    """
    if member.size > MAX_MEMBER_BYTES:
        raise DataError("file_too_large", f"{METADATA} has at most {MAX_MEMBER_BYTES >> 20} MB", member.name)
    labels: dict[str, str | None] = {}
    for number, line in enumerate(member.read().splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json_object(line.decode("utf-8"))
            name, label = _metadata_row(value, columns)
        except UnicodeDecodeError as error:
            raise DataError("encoding_error", "not valid UTF-8", f"{member.name}:{number}") from error
        except DataError as error:
            raise DataError(error.code, error.message, f"{member.name}:{number}") from error
        labels[f"{folder}/{name}" if folder else name] = label
    return labels


def _metadata_row(value: dict[str, Any], columns: dict[str, str]) -> tuple[str, str | None]:
    found = list(value)
    file = choose_column("file_name", found, columns, _FILE_COLUMNS)
    if file is None or not isinstance(value[file], str):
        raise DataError("missing_field", "a line of metadata.jsonl needs `file_name`, a string")
    label = choose_column("label", found, columns, LABEL_COLUMNS)
    return value[file], clean_label(value[label]) if label else None


def _rows(upload: Upload, kind: str, reading: Reading, contents: _Contents) -> Iterator[Row]:
    root = commonpath(contents.parents) if "" not in contents.parents else ""
    for member in members(upload.path, kind):
        if _is_junk(member.name) or member.name.endswith("/" + METADATA) or member.name == METADATA:
            continue
        reading.done += 1
        try:
            label = _label(member.name, root, contents)
            content = reading.modality.from_member(member)
        except DataError as error:
            if error.code in ("archive_invalid", "archive_bomb", "unsafe_archive"):
                raise
            upload.bad.add(member.name, reading.done, error)
            continue
        yield Row(content, label, f"{member.name}:{reading.done}")


def _label(name: str, root: str, contents: _Contents) -> str | None:
    """The metadata's word where there is one, else the folder a file lies in, unless all lie in the same."""
    if contents.metadata is not None:
        if name not in contents.metadata:
            raise DataError("missing_field", f"{METADATA} does not name this file")
        return contents.metadata[name]
    folder = name.rpartition("/")[0]
    return None if folder in ("", root) else clean_label(folder.rpartition("/")[2])
