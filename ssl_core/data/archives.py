"""Archives from strangers: everything that could write, link, lie or explode is refused before a byte is used.

Nothing is ever extracted to disk: members are read one at a time into memory, each up to a limit, and their names are
labels only. So a hostile name could do no harm here; it is refused because who unpacks the content elsewhere is not so
lucky, and because no honest archive has one.
"""

from __future__ import annotations

import errno
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from ssl_core.data.zip_directory import check_directory
from ssl_core.errors import DataError

MAX_ENTRIES = 500_000
MAX_MEMBER_BYTES = 64 * 2**20
"""A larger member is refused on its own; the rest of the archive is read."""
MAX_TOTAL_BYTES = 256 * 2**30
MAX_RATIO = 100
SMALL = 2**20
"""A member, or an archive, that unpacks to less than this may be packed as tightly as it likes."""
GZIP = b"\x1f\x8b"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_JUNK = ("thumbs.db", "desktop.ini")
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, NotImplementedError, RuntimeError,
           ValueError)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: its path with forward slashes, its size in bytes, and its bytes on demand."""

    name: str
    size: int
    read: Callable[[], bytes]


def members(path: Path, kind: str) -> Iterator[Member]:
    """The regular files in archive order; `read` works only until the next one is asked for.

    A zip is judged as a whole before its first member is given; a tar, which has no table of contents, as it is read,
    so its reader must use nothing until the end.

    Raises:
        DataError: `unsafe_archive` (a path out of the folder, a link, a device, a set-uid bit), `archive_bomb` (too
            many entries, too tightly packed, overlapping), `archive_invalid` (broken, encrypted, a name twice).
    """
    with _faults(path.name):
        yield from _zip_members(path) if kind == "zip" else _tar_members(path, kind)


def read_zip(path: Path, take: Callable[[str, IO[bytes]], None]) -> None:
    """Hand each regular file of a zip to `take` as a stream, for files too large for memory; judged as by `members`.

    Raises:
        DataError: as `members`; and what `take` raises.
    """
    with _faults(path.name):
        check_directory(path, MAX_ENTRIES)
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_zip(infos, archive.start_dir)
            for info in infos:
                _hand_over(archive, info, take)


@dataclass(frozen=True)
class Stream:
    """A file's name, its bytes as they are read, and how far into the upload that is.

    Attributes:
        name: as uploaded, or the path in an archive.
        read: so many bytes; raises DataError `archive_invalid`, `archive_bomb`.
        done: bytes of the upload that are behind it.
    """

    name: str
    read: Callable[[int], bytes]
    done: Callable[[], int]


def streams(path: Path, name: str) -> Iterator[Stream]:
    """An upload itself, called `name`; what it is the gzip of; or each file of a zip, junk aside, in its order.

    A stream can be read until the next one is asked for. A zip is judged as by `members`.

    Raises:
        DataError: as `members`.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(GZIP):
            with gzip.open(file) as unpacked:
                yield Stream(name, partial(_guarded, _Metered(unpacked, file), name), file.tell)
        elif head.startswith(ZIP):
            with _faults(name):
                check_directory(path, MAX_ENTRIES)
                archive = zipfile.ZipFile(file)
                _check_zip(archive.infolist(), archive.start_dir)
            yield from _zip_streams(archive, file)
        else:
            yield Stream(name, file.read, file.tell)


def _zip_streams(archive: zipfile.ZipFile, file: IO[bytes]) -> Iterator[Stream]:
    for info in archive.infolist():
        if info.is_dir() or is_junk(info.filename):
            continue
        with _faults(info.filename):
            member = archive.open(info)
        with member:
            yield Stream(info.filename, partial(_guarded, member, info.filename), file.tell)


def _guarded(stream: _Metered | IO[bytes], name: str, size: int) -> bytes:
    with _faults(name):
        return stream.read(size)


def zip_names(path: Path) -> list[str]:
    """The files of a zip, junk aside, not yet judged. Raises DataError as `members` where it has no sound directory."""
    with _faults(path.name):
        check_directory(path, MAX_ENTRIES)
        with zipfile.ZipFile(path) as archive:
            return [one.filename for one in archive.infolist() if not (one.is_dir() or is_junk(one.filename))]


def is_junk(name: str) -> bool:
    """Whether it is a file that systems leave in archives, which nobody means to send."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1].lower() in _JUNK


def _hand_over(archive: zipfile.ZipFile, info: zipfile.ZipInfo, take: Callable[[str, IO[bytes]], None]) -> None:
    if not info.is_dir():
        with archive.open(info) as stream:
            take(info.filename, stream)


@contextmanager
def _faults(where: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # the machine's trouble, not the archive's
        reason = str(error)[:200] or type(error).__name__
        raise DataError("archive_invalid", f"the archive is broken: {reason}", where) from error


def check_name(name: str) -> None:
    """Raises DataError `unsafe_archive` for a path that is absolute, climbs out, or holds what no file name should."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or (len(name) > 1 and name[1] == ":"):
        raise DataError("unsafe_archive", "a member's path leaves the archive's folder", name[:400])
    if not name or len(name) > 1000 or any(ord(letter) < 32 for letter in name):
        raise DataError("unsafe_archive", "a member's path is empty, too long or holds control characters", name[:400])


def _check_mode(name: str, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError("unsafe_archive", "links, devices and pipes are not allowed in an archive", name)
    if mode & _SPECIAL_BITS:
        raise DataError("unsafe_archive", "set-uid and set-gid files are not allowed in an archive", name)


class _Names:
    """Members seen so far: how many, how large together, none twice."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._bytes = 0

    def add(self, name: str, size: int) -> None:
        if name in self._seen:
            raise DataError("archive_invalid", "the archive holds this name twice", name)
        self._seen.add(name)
        self._bytes += size
        if len(self._seen) > MAX_ENTRIES or self._bytes > MAX_TOTAL_BYTES:
            message = f"at most {MAX_ENTRIES:,} members and {MAX_TOTAL_BYTES >> 30} GB unpacked are allowed"
            raise DataError("archive_bomb", message)


def _zip_members(path: Path) -> Iterator[Member]:
    check_directory(path, MAX_ENTRIES)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check_zip(infos, archive.start_dir)
        for info in infos:
            if not info.is_dir():
                yield Member(info.filename, info.file_size, partial(_unzipped, archive, info))


def _check_zip(infos: list[zipfile.ZipInfo], directory_at: int) -> None:
    names, packed, unpacked = _Names(), 0, 0
    for info in infos:
        # zipfile rewrites backslashes on some systems and cuts at NUL; the name as stored is judged.
        check_name(info.orig_filename.rstrip("/") if info.is_dir() else info.orig_filename)
        _check_mode(info.filename, info.external_attr >> 16)
        names.add(info.filename, info.file_size)
        if info.flag_bits & 0x1:
            raise DataError("archive_invalid", "the archive is encrypted; upload it without a password", info.filename)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError("archive_invalid", "only stored and deflated zip members are read", info.filename)
        if info.file_size > SMALL and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise DataError("archive_bomb", f"packed more than {MAX_RATIO} times", info.filename)
        packed, unpacked = packed + info.compress_size, unpacked + info.file_size
    if unpacked > SMALL and unpacked > MAX_RATIO * max(packed, 1):
        raise DataError("archive_bomb", f"the archive unpacks to more than {MAX_RATIO} times its size")
    # Overlapping members let a small file unpack to petabytes (Fifield 2019, "A better zip bomb").
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in ordered[1:]] + [directory_at]
    for info, end in zip(ordered, ends, strict=False):
        if info.header_offset + 30 + info.compress_size > end:
            raise DataError("archive_bomb", "members of the archive overlap", info.filename)


class _Metered:
    """A stream that refuses a huge single read (a header that lies) and, of gzip, a huge ratio."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, packed: IO[bytes] | None) -> None:
        self._stream = stream
        self._packed = packed

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_MEMBER_BYTES:
            raise DataError("archive_bomb", f"a part of the archive claims {size:,} bytes")
        data = self._stream.read(size)
        self._check()
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        # In pieces, so that the ratio is looked at while a long hole is skipped.
        while whence == 0 and position - self._stream.tell() > MAX_MEMBER_BYTES and self.read(MAX_MEMBER_BYTES):
            pass
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self) -> None:
        unpacked = self._stream.tell()
        if unpacked > MAX_TOTAL_BYTES:
            raise DataError("archive_bomb", f"the archive unpacks to more than {MAX_TOTAL_BYTES >> 30} GB")
        # gzip reads ahead, so little of `packed` may be behind a large `unpacked`, never the other way round.
        if self._packed is not None and unpacked > 64 * SMALL and unpacked > MAX_RATIO * self._packed.tell():
            raise DataError("archive_bomb", f"the archive unpacks to more than {MAX_RATIO} times its size")


def _tar_members(path: Path, kind: str) -> Iterator[Member]:
    with path.open("rb") as packed:
        if kind == "tar":
            yield from _walk_tar(_Metered(packed, None))
        else:
            with gzip.open(packed) as unpacked:
                yield from _walk_tar(_Metered(unpacked, packed))


def _walk_tar(stream: _Metered) -> Iterator[Member]:
    names = _Names()
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
        while (info := archive.next()) is not None:
            archive.members = []  # tarfile remembers every member; half a million of them are too many
            if info.isdir() and info.name in ("", "."):
                continue
            check_name(info.name.removeprefix("./"))
            if not (info.isdir() or info.isreg()) or info.issparse():
                raise DataError("unsafe_archive", "links, devices, pipes and sparse files are not allowed", info.name)
            _check_mode(info.name, info.mode)
            names.add(info.name.removeprefix("./"), info.size)
            if info.isreg():
                yield Member(info.name.removeprefix("./"), info.size, partial(_untarred, archive, info))


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with _faults(info.filename):
        return archive.read(info)


def _untarred(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    with _faults(info.name):
        file = archive.extractfile(info)
        return b"" if file is None else file.read()
