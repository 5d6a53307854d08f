"""The end of a zip file, read before the standard library does: it would load a directory of any size into objects.

Layout: PKWARE APPNOTE 6.3.10, sections 4.3.14 to 4.3.16.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from ssl_core.errors import DataError

MAX_DIRECTORY_BYTES = 96 * 2**20
_END, _END_SIZE = b"PK\x05\x06", 22
_LOCATOR, _LOCATOR_SIZE = b"PK\x06\x07", 20
_END64, _END64_SIZE = b"PK\x06\x06", 56
_ENTRY = b"PK\x01\x02"
_COMMENT = 65535
_CHUNK = 2**22


def check_directory(path: Path, most: int) -> None:
    """Look at the size of the central directory, and count its entries by signature, since counts may lie.

    Raises:
        DataError: `archive_invalid` where there is none, `archive_bomb` where it is larger than `most` entries.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, total - _END_SIZE - _COMMENT - _LOCATOR_SIZE))
        tail = file.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < _END_SIZE:
            raise DataError("archive_invalid", "the zip has no directory at its end; it is truncated")
        size, offset = struct.unpack_from("<II", tail, at + 12)
        end_at = total - len(tail) + at
        if 0xFFFFFFFF in (size, offset) or tail[max(0, at - _LOCATOR_SIZE) :].startswith(_LOCATOR):
            size, end_at = _wide(file, end_at)
        if size > end_at:
            raise DataError("archive_invalid", "the zip's directory is larger than the file")
        if size > MAX_DIRECTORY_BYTES or _count(file, end_at - size, size) > most:
            raise DataError("archive_bomb", f"at most {most:,} members are allowed in an archive")


def _wide(file: IO[bytes], end_at: int) -> tuple[int, int]:
    """Size of the directory and where it ends, of a zip64."""
    file.seek(max(0, end_at - _LOCATOR_SIZE))
    locator = file.read(_LOCATOR_SIZE)
    if not locator.startswith(_LOCATOR) or len(locator) < _LOCATOR_SIZE:
        raise DataError("archive_invalid", "the zip64 locator is missing")
    # The standard library expects the record right before its locator, and so do we: one truth.
    place = end_at - _LOCATOR_SIZE - _END64_SIZE
    file.seek(max(0, place))
    record = file.read(_END64_SIZE)
    if not record.startswith(_END64) or len(record) < _END64_SIZE:
        raise DataError("archive_invalid", "the zip64 directory record is missing")
    (size,) = struct.unpack_from("<Q", record, 40)
    return size, place


def _count(file: IO[bytes], start: int, size: int) -> int:
    file.seek(start)
    found, left, carry = 0, size, b""
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        left -= len(chunk)
        found += (carry + chunk).count(_ENTRY)
        carry = chunk[-3:]
    return found
