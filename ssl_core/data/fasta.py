"""Rows of FASTA files, streamed: a line `>name` begins a chain, the lines up to the next one spell it.

An upload is one such file, plain or packed with gzip, or a zip of several.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ssl_core.data.archives import Stream, streams
from ssl_core.data.intake import Reading, Row, Upload
from ssl_core.data.lines import lines
from ssl_core.errors import DataError

if TYPE_CHECKING:
    from ssl_core.modalities.base import Modality

_LONGEST_LINE = 2**20
_MOST_BYTES = 2**20
"""Of one chain, gaps and blanks included; what is longer is read past and refused."""


class _Record:
    """A chain being read; row numbers count chains from 1."""

    def __init__(self, number: int, named: bool) -> None:
        self.number = number
        self._error = None if named else DataError("invalid_fasta", "letters before the first line that begins with >")
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, line: bytes | None) -> None:
        """One more line of it; None for a line that was too long."""
        self._size += _MOST_BYTES + 1 if line is None else len(line)
        if self._size > _MOST_BYTES:
            self._parts = []
            self._error = self._error or DataError("sequence_too_long", f"a sequence has at most {_MOST_BYTES:,} bytes")
        elif line is not None:
            self._parts.append(line)

    def letters(self) -> str:
        """Raises DataError."""
        if self._error is not None:
            raise self._error
        try:
            return b"".join(self._parts).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError("encoding_error", f"not valid UTF-8 at byte {error.start}") from error


def read(upload: Upload, modality: type[Modality], column: str) -> Reading:
    """Rows of FASTA files, without labels; `column` takes the chain. A row is told by its number in its file, not by
    its name. Raises DataError, while rows are read too, as `archives.streams`."""
    reading = Reading(modality, iter(()), total=upload.path.stat().st_size)
    reading.rows = _rows(upload, reading, column)
    return reading


def _rows(upload: Upload, reading: Reading, column: str) -> Iterator[Row]:
    for stream in streams(upload.path, upload.name):
        for record in _records(stream, reading):
            try:
                content = reading.modality.from_row({column: record.letters()})
            except DataError as error:
                upload.bad.add(stream.name, record.number, error)
                continue
            yield Row(content, None, f"{stream.name}:{record.number}")


def _records(stream: Stream, reading: Reading) -> Iterator[_Record]:
    """Lines that begin with `;` are comments, as in the format's first description (Lipman and Pearson 1985)."""
    record: _Record | None = None
    count = 0
    for _, line in lines(stream, _LONGEST_LINE):
        reading.done = stream.done()
        if line is not None and (line.startswith(b";") or not line.strip()):
            continue
        starts = line is not None and line.startswith(b">")
        if starts and record is not None:
            yield record
        if starts or record is None:
            count += 1
            record = _Record(count, named=starts)
        if not starts:
            record.add(line)
    if record is not None:
        yield record
