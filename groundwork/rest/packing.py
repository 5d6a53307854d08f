"""A folder as one file to send: a zip made beside, with sub-folders as labels."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from groundwork.errors import GroundworkError

_PACKED = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".mp3", ".flac", ".ogg", ".gz", ".parquet"})
"""Endings of what no compression makes smaller."""
_SINCE = (1980, 1, 1, 0, 0, 0)


@contextmanager
def as_one_file(path: Path, on_file: Callable[[int], None] = lambda _: None) -> Iterator[Path]:
    """The file itself; of a folder a temporary zip, named like it and gone afterwards. `on_file`: how many are in it.

    The same content makes the same bytes, so that an upload that broke off can go on. Hidden files and folders are left
    out. A link is refused: it may lead anywhere. So is a pipe or a socket: reading it may never end.

    Raises:
        OSError: there is nothing at `path`, something in it cannot be read, or there is no room for the zip.
        GroundworkError: the folder holds no files, or a link, a pipe or a socket.
    """
    if not path.is_dir():
        path.stat()
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="groundwork-") as scratch:
        made = Path(scratch) / f"{path.resolve().name or 'folder'}.zip"
        _pack(path, made, on_file)
        yield made


def _pack(folder: Path, target: Path, on_file: Callable[[int], None]) -> None:
    done = 0
    with zipfile.ZipFile(target, "w") as archive:
        for done, file in enumerate(_files(folder), 1):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _SINCE)
            entry.compress_type = zipfile.ZIP_STORED if file.suffix.lower() in _PACKED else zipfile.ZIP_DEFLATED
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as out:
                shutil.copyfileobj(source, out, 2**20)
            on_file(done)
    if not done:
        raise GroundworkError(f"the folder {folder} holds no files; give one of pictures, sounds or texts")


def _files(folder: Path) -> Iterator[Path]:
    for place, below, names in os.walk(folder, onerror=_unreadable):
        below[:] = sorted(name for name in below if not name.startswith("."))
        seen = sorted(name for name in names if not name.startswith("."))
        for path in (Path(place) / name for name in (*below, *seen)):
            if path.is_symlink():
                raise GroundworkError(f"{path} is a link; put the file itself there, or make the archive yourself")
        for path in (Path(place) / name for name in seen):
            if not path.is_file():
                raise GroundworkError(f"{path} is no file; take it out of the folder")
            yield path


def _unreadable(error: OSError) -> None:
    """`os.walk` would leave the folder out, and the dataset would lack its files without a word."""
    raise error
