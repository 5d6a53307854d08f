"""Rows of archives: files of one modality, flat, in one folder a class, or told of in a table of contents.

An archive is walked twice: first for its names (safety, classes, contents), then for its bytes; a tar has no other way
to know its classes before its first file. Where a row is a file and something said of it (a picture and its caption),
every line of the table is a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from os.path import commonpath

from ssl_core.data import coco, contents, pictures, sniff
from ssl_core.data.archives import MAX_MEMBER_BYTES, Member, is_junk, members
from ssl_core.data.intake import Reading, Row, TargetColumns, Upload, clean_label
from ssl_core.errors import DataError
from ssl_core.modalities.base import Modality

_VOTERS = 20
_UNSAFE = ("archive_invalid", "archive_bomb", "unsafe_archive")


@dataclass
class _Survey:
    """What the first walk found.

    Attributes:
        count: files that are not junk.
        parents: their folders.
        modality: whose they are, by the first of them (see `_chosen`), or by the table of contents.
        table: None without one.
        boxes: the objects in its pictures; None where nothing tells of them.
    """

    count: int = 0
    boxes: coco.Annotations | None = None
    parents: set[str] = field(default_factory=set)
    modality: type[Modality] | None = None
    table: contents.Table | None = None


def read(upload: Upload, kind: str, candidates: list[type[Modality]]) -> Reading:
    """Rows of an archive that is of one of those modalities.

    Raises:
        DataError: `unsafe_archive`, `archive_bomb`, `archive_invalid`, `empty_dataset`, `unsupported_type`,
            `missing_captions`, or of its table of contents.
    """
    found = _survey(upload, kind, candidates)
    if found.count == 0:
        raise DataError("empty_dataset", "the archive holds no files", upload.name)
    if found.modality is None:
        raise DataError("unsupported_type", "no file in the archive is of a kind that can be read", upload.name)
    reading = Reading(found.modality, iter(()), total=found.count)
    told = contents.told_columns(found.modality)
    if told and found.table is None:
        names, needed = " or ".join(contents.NAMES), " and ".join(f"`{name}`" for name in told)
        message = f"the archive needs a {names} with a line for each file: `file_name` and {needed}"
        raise DataError("missing_captions", message, upload.name)
    if found.table is not None and not told:
        found.table.check()
    if found.boxes is not None:
        reading.targets = TargetColumns({"boxes": {"boxes": "boxes"}})
        reading.rows = _boxed(upload, kind, reading, found.boxes)
    elif told and found.table:
        reading.rows = _pairs(upload, kind, reading, found.table)
    else:
        reading.rows = _rows(upload, kind, reading, found)
    return reading


def _survey(upload: Upload, kind: str, candidates: list[type[Modality]]) -> _Survey:
    found = _Survey(modality=candidates[0] if len(candidates) == 1 else None)
    votes: list[type[Modality]] = []
    for member in members(upload.path, kind):
        if is_junk(member.name):
            continue
        folder, _, base = member.name.rpartition("/")
        if base in contents.NAMES:
            found.table = found.table or contents.Table()
            found.table.add(member, upload.columns)
            continue
        if base in coco.NAMES and _pictures_among(candidates):
            if found.boxes is not None:
                message = f"the archive has two lists of objects, {found.boxes.file} and this; pack them apart"
                raise DataError("invalid_annotations", message, member.name)
            found.boxes = coco.read(member)
            continue
        found.count += 1
        found.parents.add(folder)
        if len(candidates) > 1 and len(votes) < _VOTERS and member.size <= MAX_MEMBER_BYTES:
            head = member.read()[: sniff.HEAD]
            votes.extend([one for one in candidates if one.recognises(head)][:1])
    if votes:
        found.modality = _chosen(votes)
    if found.boxes is not None:
        found.modality = _pictures_among(candidates)
    if len(candidates) > 1 and found.table is not None:
        table = found.table
        told = (one for one in candidates if table.tells(one, upload.columns))
        found.modality = next(told, found.modality)
    return found


def _pictures_among(candidates: list[type[Modality]]) -> type[Modality] | None:
    """The modality whose rows are one picture."""
    return next((one for one in candidates if tuple(one.columns) == ("image",)), None)


def _chosen(votes: list[type[Modality]]) -> type[Modality]:
    """What most of the files are. At a tie not what takes anything: broken pictures may pass for text."""
    return max(votes, key=lambda one: (votes.count(one), not one.catch_all))


def _files(upload: Upload, kind: str, reading: Reading, aside: str = "") -> Iterator[Member]:
    """What is neither junk nor a table of contents nor `aside`, counted."""
    for member in members(upload.path, kind):
        told = member.name.rpartition("/")[2] in contents.NAMES or member.name == aside
        if not is_junk(member.name) and not told:
            reading.done += 1
            yield member


def _rows(upload: Upload, kind: str, reading: Reading, found: _Survey) -> Iterator[Row]:
    root = commonpath(found.parents) if "" not in found.parents else ""
    for member in _files(upload, kind, reading):
        try:
            label = _label(member.name, root, found, upload.columns)
            content = reading.modality.from_member(member)
        except DataError as error:
            if error.code in _UNSAFE:
                raise
            upload.bad.add(member.name, reading.done, error)
            continue
        yield Row(content, label, f"{member.name}:{reading.done}")


def _boxed(upload: Upload, kind: str, reading: Reading, told: coco.Annotations) -> Iterator[Row]:
    """Pictures with their objects; one that the list does not name has none that are known."""
    for (file, number), fault in told.faults:
        upload.bad.add(file, number, fault, part=True)
    for member in _files(upload, kind, reading, aside=told.file):
        listed, objects = told.of(member.name), None
        faults: list[coco.Fault] = []
        try:
            content = reading.modality.from_member(member)
            if listed is not None:
                objects, faults = told.objects(listed, *pictures.size_of(content["image"]))
        except DataError as error:
            if error.code in _UNSAFE:
                raise
            upload.bad.add(member.name, reading.done, error)
            continue
        for (file, number), fault in faults:
            upload.bad.add(file, number, fault, part=True)
        yield Row(content, None, f"{member.name}:{reading.done}", {"boxes": objects})
    for listed in told.pictures.values():
        upload.bad.add(*listed.where, DataError("missing_file", f"the archive holds no {listed.name[:300]!r}"))


def _label(name: str, root: str, found: _Survey, columns: dict[str, str]) -> str | None:
    """The table's word where there is one, else the folder a file lies in, unless all lie in the same."""
    if found.table is not None:
        if name not in found.table.entries:
            raise DataError("missing_field", "the archive's table of contents does not name this file")
        return contents.label_of(found.table.entries[name][-1], columns)
    folder = name.rpartition("/")[0]
    return None if folder in ("", root) else clean_label(folder.rpartition("/")[2])


def _pairs(upload: Upload, kind: str, reading: Reading, table: contents.Table) -> Iterator[Row]:
    """A row for each line; a file without a line, and a line without its file, are bad rows."""
    for (file, line), error in table.faults:
        upload.bad.add(file, line, error)
    missing = dict(table.entries)
    for member in _files(upload, kind, reading):
        entries = missing.pop(member.name, [])
        if not entries:
            message = "the archive's table of contents does not name this file"
            upload.bad.add(member.name, reading.done, DataError("missing_field", message))
        if len(entries) > 1:  # a tar gives its bytes once
            member = Member(member.name, member.size, cache(member.read))
        for entry in entries:
            row = _pair(upload, reading, member, entry)
            if row is not None:
                yield row
    for name, entries in missing.items():
        for entry in entries:
            upload.bad.add(*entry.where, DataError("missing_file", f"the archive holds no {name[:300]!r}"))


def _pair(upload: Upload, reading: Reading, member: Member, entry: contents.Entry) -> Row | None:
    try:
        told = contents.told_of(entry, reading.modality, upload.columns)
        label = contents.label_of(entry, upload.columns)
        return Row(reading.modality.from_pair(member, told), label, f"{entry.where[0]}:{entry.where[1]}")
    except DataError as error:
        if error.code in _UNSAFE:
            raise
        upload.bad.add(*entry.where, error)
        return None
