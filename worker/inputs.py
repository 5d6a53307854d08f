"""All that a run reads, brought to local disk: datasets and models through the cache, checkpoints, `run.json`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from worker.api_client import Door, Refused
from worker.cache import Cache, digest
from worker.settings import WorkerSettings
from worker.ticket import Input, RemoteCheckpoint, RemoteFile, Ticket

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The job was cancelled, paused or drained while its inputs were still on the way."""


class Fetcher:
    """Fills one run directory.

    Args:
        door: where files come from.
        cache: where they are kept for the next run.
        patience: seconds to wait for a lost API.
        interrupted: asked before each file; True raises Interrupted.
    """

    def __init__(self, door: Door, cache: Cache, patience: float, interrupted: Callable[[], bool]) -> None:
        self._door, self._cache, self._patience, self._interrupted = door, cache, patience, interrupted

    def fill(self, run: Path, ticket: Ticket, settings: WorkerSettings) -> None:
        """Write `run.json` and all it points to.

        Raises:
            Interrupted: see above.
            ApiTrouble, DigestMismatch, OSError: an input could not be had.
        """
        order: dict[str, Any] = {"spec": ticket.spec, "datasets": {}, "cache": str(self._cache.prepared)}
        for each in ticket.inputs:
            place = self._input(run, each)
            if each.role == "model":
                order["model"] = str(place)
            else:
                order["datasets"][each.id] = str(place)
        order["checkpoints"] = self._checkpoints(run, ticket.checkpoints)
        if settings.engine_threads:
            order["threads"] = settings.engine_threads
        part = run / "run.json.part"
        part.write_text(json.dumps(order))
        part.replace(run / "run.json")

    def _input(self, run: Path, each: Input) -> Path:
        folder = run / "inputs" / each.id
        folder.mkdir(parents=True, exist_ok=True)
        for file in each.files:
            self._check()
            self._cache.place(file.sha256, file.size, folder / file.path, partial(self._fetch, file))
        if each.role == "upload" and len(each.files) == 1:
            return folder / each.files[0].path
        return folder

    def _checkpoints(self, run: Path, candidates: list[RemoteCheckpoint]) -> list[str]:
        """Newest first, as far as the first one that is whole: the engine falls back, and says so (R15)."""
        fetched = []
        for each in candidates:
            folder = run / "resume" / each.id
            folder.mkdir(parents=True, exist_ok=True)
            good = [self._checkpoint_file(file, folder / file.path) for file in each.files]
            fetched.append(str(folder))
            if all(good):
                break
        return fetched

    def _checkpoint_file(self, file: RemoteFile, target: Path) -> bool:
        """False where it is missing or damaged in the store; what did arrive stays for the engine to judge."""
        self._check()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._fetch(file, target)
        except Refused as refusal:
            log.warning("checkpoint file %s cannot be had: %s", file.path, refusal)
            return False
        return digest(target) == file.sha256

    def _fetch(self, file: RemoteFile, target: Path) -> None:
        self._door.fetch(file, target, self._patience)

    def _check(self) -> None:
        if self._interrupted():
            raise Interrupted
