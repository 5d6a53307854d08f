"""A folder as one file to upload: a zip made beside, of what datasets are made of, with sub-folders as labels."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from groundwork.commands.failures import Failure

_PACKED = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".mp3", ".flac", ".ogg", ".gz", ".parquet"})
"""Endings of what no compression makes smaller."""


@contextmanager
def as_file(path: Path, on_file: Callable[[int], None] = lambda _: None) -> Iterator[Path]:
    """`path` itself, or, of a folder, a temporary zip that is gone afterwards. `on_file`: how many are in it.

    Hidden files are left out, and the zip is named like the folder. A link is refused: it may lead anywhere.

    Raises:
        Failure: there is nothing at `path`, nothing in the folder, or a link.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise Failure(f"{path} does not exist", "check the path")
    with tempfile.TemporaryDirectory(prefix="groundwork-") as scratch:
        target = Path(scratch) / f"{path.resolve().name or 'folder'}.zip"
        _zip(path, target, on_file)
        yield target


def _zip(folder: Path, target: Path, on_file: Callable[[int], None]) -> None:
    done = 0
    try:
        with zipfile.ZipFile(target, "w", strict_timestamps=False) as archive:
            for done, file in enumerate(_files(folder), 1):
                how = zipfile.ZIP_STORED if file.suffix.lower() in _PACKED else zipfile.ZIP_DEFLATED
                archive.write(file, file.relative_to(folder).as_posix(), how)
                on_file(done)
    except OSError as error:
        what = error.filename or target
        raise Failure(f"{what}: {error.strerror or error}", "check the path and the room in $TMPDIR") from error
    if not done:
        raise Failure(f"the folder {folder} has no files in it", "give a folder of pictures, sounds or texts")


def _files(folder: Path) -> Iterator[Path]:
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        seen = sorted(name for name in names if not name.startswith("."))
        for path in (Path(place) / name for name in (*below, *seen)):
            if path.is_symlink():
                raise Failure(f"{path} is a link", "put the file itself there, or make the archive yourself")
        yield from (Path(place) / name for name in seen)
