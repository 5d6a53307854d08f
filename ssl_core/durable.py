"""Folders that are either whole or absent: temp folder, fsync, manifest, rename, fsync of the parent (R14)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """fsync a file or a folder. An error here is fatal for that file and never retried: the kernel may already have
    dropped the dirty pages (F18)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file by temp, fsync and rename, so that a reader sees all of it or none."""
    temp = path.with_name(f".{path.name}.tmp")
    temp.write_text(json.dumps(value, allow_nan=False, indent=1))
    sync(temp)
    temp.replace(path)
    sync(path.parent)


@contextmanager
def committed(final: Path, **extra: Any) -> Iterator[Path]:
    """A temp folder beside `final` to write into; on leaving without an error it becomes `final` in one rename.

    Args:
        final: the folder to appear; one that exists already is replaced.
        extra: further keys of `manifest.json` beside `files`.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temp = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir()
    try:
        yield temp
        entries = [_entry(temp, path) for path in sorted(temp.rglob("*")) if path.is_file() and path.name != MANIFEST]
        write_json(temp / MANIFEST, {**extra, "files": entries})
        for folder in (path for path in temp.rglob("*") if path.is_dir()):
            sync(folder)
        if final.exists():
            shutil.rmtree(final)
        temp.rename(final)
        sync(final.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _entry(root: Path, path: Path) -> dict[str, Any]:
    sync(path)
    return {"path": path.relative_to(root).as_posix(), "size": path.stat().st_size, "sha256": sha256(path)}


def fault_of(folder: Path) -> str | None:
    """What is wrong with a committed folder, in words; None when every file matches its manifest (R15)."""
    try:
        entries = [(str(e["path"]), int(e["size"]), str(e["sha256"])) for e in read_manifest(folder)["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest.json cannot be read ({type(error).__name__})"
    for name, size, digest in entries:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if sha256(path) != digest:
            return f"{name} does not match its sha256"
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a committed folder."""
    value: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return value
