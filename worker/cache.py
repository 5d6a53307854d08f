"""Files fetched once and kept by content: `files/ab/abcd…`, read-only, linked into each run that needs them.

The hard link is the pin: a file whose link count is above one is in use by a run directory, on whichever worker, and
a run directory that is deleted (or was never cleaned up until the next start) gives its pins back. No lock to leak.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


PREPARED_REST = 3600  # shards opened this recently may be about to be mapped
PART_LIFETIME = 24 * 3600  # an unfinished download untouched this long has no owner any more


class DigestMismatch(Exception):
    """What arrived is not what was announced."""


class Cache:
    """A bounded store of files keyed by sha256.

    Args:
        root: folder on the same file system as the run directories.
        limit_bytes: kept beyond what runs have in use.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._files, self._limit = root / "files", limit_bytes
        self._files.mkdir(parents=True, exist_ok=True)
        self._evicting = threading.Lock()
        self.prepared = root / "prepared"
        self.prepared.mkdir(parents=True, exist_ok=True)

    def place(self, sha256: str, size: int, target: Path, fetch: Callable[[Path], None]) -> None:
        """Put the file at `target`, calling `fetch(part)` where it is not here yet.

        Raises:
            DigestMismatch: twice in a row the bytes did not match.
            OSError: the disk refused.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        for last in (False, True):
            kept = self._kept(sha256)
            if not _complete(kept, size):
                self._fetch(sha256, kept, fetch, last)
            try:
                _link(kept, target)
            except FileNotFoundError:
                continue  # evicted between the look and the link
            else:
                os.utime(kept)
                return
        raise FileNotFoundError(f"{kept} was taken away twice")

    def evict(self) -> int:
        """Delete the least recently used over the limit; returns the bytes freed. Fetched files in use stay.

        Prepared shards have a limit of their own of the same size; a run maps them when it starts, so what was made
        or opened within the hour stays, and what is mapped outlives its name.
        """
        with self._evicting:
            return self._evict_files() + self._evict_prepared()

    def _evict_files(self) -> int:
        now = time.time()
        seen = [(path, path.stat()) for path in self._files.rglob("*") if path.is_file()]
        found = [(path, stat) for path, stat in seen if stat.st_nlink == 1 and not _arriving(path, stat, now)]
        over, freed = sum(stat.st_size for _, stat in found) - self._limit, 0
        for path, stat in sorted(found, key=lambda each: each[1].st_mtime):
            if freed >= over:
                break
            path.unlink(missing_ok=True)
            freed += stat.st_size
        return freed

    def _evict_prepared(self) -> int:
        sized = [(entry, entry.stat(), _bytes_below(entry)) for entry in self.prepared.iterdir()]
        over, freed = sum(size for _, _, size in sized) - self._limit, 0
        for entry, stat, size in sorted(sized, key=lambda each: max(each[1].st_atime, each[1].st_mtime)):
            used = max(stat.st_atime, stat.st_mtime)
            if freed >= over or time.time() - used < PREPARED_REST:
                break
            shutil.rmtree(entry, ignore_errors=True)
            freed += size
        return freed

    def _kept(self, sha256: str) -> Path:
        return self._files / sha256[:2] / sha256

    def _fetch(self, sha256: str, kept: Path, fetch: Callable[[Path], None], last: bool) -> None:
        kept.parent.mkdir(exist_ok=True)
        part = kept.with_name(f"{sha256}.{uuid.uuid4().hex}.part")
        try:
            fetch(part)
            found = digest(part)
            if found == sha256:
                part.chmod(0o444)
                part.replace(kept)
            elif last:
                raise DigestMismatch(f"expected sha256 {sha256}, got {found}")
            else:
                log.warning("a fetched file has sha256 %s instead of %s; fetching it again", found, sha256)
        finally:
            part.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _complete(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _arriving(path: Path, stat: os.stat_result, now: float) -> bool:
    return path.suffix == ".part" and now - stat.st_mtime < PART_LIFETIME


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
