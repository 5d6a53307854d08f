"""Bringing what a run made to the API: samples, checkpoints, the artifact. First the files, then their row."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
from collections import deque
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from worker import logs
from worker.api_client import ApiTrouble, Door, LeaseLost, Refused
from worker.cache import digest
from worker.ticket import FilePath

PATH: TypeAdapter[str] = TypeAdapter(FilePath)
log = logging.getLogger(__name__)


class BadOutput(Exception):
    """The run left something that cannot be taken: no manifest, a missing file, a path that leads outside."""


def inside(folder: Path, path: object) -> Path:
    """The regular file at `path` under `folder`. Raises BadOutput for anything else, links that lead outside too."""
    try:
        name = PATH.validate_python(path)
        found = (folder / name).resolve(strict=True)
    except (ValidationError, OSError) as error:
        raise BadOutput(f"{path!r} is not a file of this run") from error
    if not found.is_relative_to(folder.resolve()) or not found.is_file():
        raise BadOutput(f"{path!r} is not a file of this run")
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """`manifest.json`, with its own entry added to its files. Raises BadOutput."""
    path = inside(folder, "manifest.json")
    try:
        manifest = json.loads(path.read_bytes())
        files = [{"path": PATH.validate_python(f["path"]), "size": int(f["size"]), "sha256": str(f["sha256"])}
                 for f in manifest["files"] if f["path"] != "manifest.json"]  # fmt: skip
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise BadOutput(f"{path.parent.name}/manifest.json cannot be read") from error
    own = {"path": "manifest.json", "size": path.stat().st_size, "sha256": digest(path)}
    return {**manifest, "files": [*files, own]}


def put_folder(door: Door, folder: Path, prefix: str, patience: float) -> dict[str, Any]:
    """Upload a committed folder file by file; returns its manifest. Raises BadOutput, ApiTrouble."""
    manifest = read_manifest(folder)
    for each in manifest["files"]:
        source = inside(folder, each["path"])
        if (size := source.stat().st_size) != each["size"]:
            raise BadOutput(f"{folder.name}/{each['path']} has {size} bytes, its manifest says {each['size']}")
        door.put_file(f"{prefix}/{each['path']}", source, each["sha256"], patience)
    return manifest


class CheckpointUploader:
    """Uploads in a thread of its own, so that a large checkpoint on a slow line never holds back events.

    Where the line is slower than the run, checkpoints in the middle are passed over; the newest always goes.

    Args:
        run: the run directory.
        door: the attempt's door.
        patience: seconds to wait for a lost API.
    """

    def __init__(self, run: Path, door: Door, patience: float) -> None:
        self._run, self._door, self._patience = run, door, patience
        self._outbox = run / "outbox"
        self._waiting: deque[tuple[int, Path]] = deque()
        self._changed = threading.Condition()
        self._busy = self._closed = False
        self._last_step = -1
        self._thread = logs.thread(self._work, f"upload-{run.name}")
        self._thread.start()

    def offer(self, event: dict[str, Any]) -> None:
        """A `checkpoint` event: keep its folder (by hard links, since the engine prunes old ones) and queue it."""
        step = int(event["step"])
        if step <= self._last_step:
            return
        try:
            manifest = inside(self._run, f"{event['path'].rstrip('/')}/manifest.json")
            kept = self._outbox / manifest.parent.name
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(manifest.parent, kept, copy_function=_link_or_copy)
        except (BadOutput, OSError, shutil.Error) as error:
            log.warning("%s: the checkpoint of step %d was not kept: %s", self._run.name, step, error)
            return
        self._last_step = step
        with self._changed:
            self._waiting.append((step, kept))
            while len(self._waiting) > 2:
                shutil.rmtree(self._waiting.popleft()[1], ignore_errors=True)
            self._changed.notify_all()

    def finish(self, seconds: float) -> bool:
        """Wait until all that was offered is up; then stop. False if time ran out."""
        with self._changed:
            done = self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout=max(seconds, 0))
            self._closed = True
            self._changed.notify_all()
        return done

    def _work(self) -> None:
        while (each := self._take()) is not None:
            step, folder = each
            try:
                manifest = put_folder(self._door, folder, f"checkpoints/{folder.name}", self._patience)
                self._door.checkpoint(step, manifest, self._patience)
            except LeaseLost:
                return
            except (ApiTrouble, BadOutput, OSError, ValueError) as error:
                log.warning("%s: the checkpoint of step %d was not uploaded: %s", self._run.name, step, error)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _take(self) -> tuple[int, Path] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting or self._closed:
                return None
            self._busy = True
            return self._waiting.popleft()


def post_events(door: Door, events: list[dict[str, Any]], patience: float) -> None:
    """Post a batch; where the API refuses it, halve it until only the event at fault is dropped."""
    if not events:
        return
    try:
        door.events(events, patience)
    except Refused as refusal:
        if len(events) == 1:
            log.warning("the API refused event %s: %s", events[0].get("seq"), refusal)
            return
        middle = len(events) // 2
        post_events(door, events[:middle], patience)
        post_events(door, events[middle:], patience)


def put_sample(door: Door, run: Path, event: dict[str, Any], patience: float) -> bool:
    """Upload the file a `sample` event names; False (and the event is dropped) where there is none."""
    try:
        source = inside(run, event["path"])
        door.put_file(event["path"], source, digest(source), patience)
    except (BadOutput, Refused, OSError) as error:
        log.warning("%s: sample %r was not uploaded: %s", run.name, event["path"], error)
        return False
    return True


def _link_or_copy(source: str, target: str) -> str:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return target
    return str(shutil.copy2(source, target))


