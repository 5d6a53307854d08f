"""What a supervisor writes down about the attempts it holds, so that its successor on this host can clean up (R5).

One file per attempt, mode 0600 and outside the run directory: it holds the attempt's token, which the engine must
never see.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from worker import processes
from worker.api_client import ApiClient, ApiTrouble
from worker.ticket import Ticket

RELEASE_PATIENCE = 120.0
log = logging.getLogger(__name__)


class Note(BaseModel):
    """One attempt held by one supervisor."""

    model_config = ConfigDict(extra="ignore")

    ticket: Ticket
    host: str
    supervisor_pid: int
    supervisor_started: str
    engine_pid: int | None = None
    engine_started: str | None = None

    def supervisor_lives(self) -> bool:
        """Whether the process that wrote it still runs."""
        return processes.is_alive(self.supervisor_pid, self.supervisor_started)


class Notebook:
    """The notes and run directories under one worker root.

    Args:
        root: the worker's folder; several workers of one host may share it.
    """

    def __init__(self, root: Path) -> None:
        self._notes, self.runs = root / "attempts", root / "runs"
        for folder in (self._notes, self.runs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def open(self, ticket: Ticket) -> Path:
        """Write the attempt down, then make its empty run directory."""
        self._write(Note(
            ticket=ticket, host=socket.gethostname(), supervisor_pid=os.getpid(),
            supervisor_started=processes.start_time(os.getpid()) or "",
        ))  # fmt: skip
        run = self.runs / ticket.name
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(mode=0o700)
        return run

    def engine_started(self, ticket: Ticket, pid: int, started: str) -> None:
        """Add which process it is."""
        note = Note.model_validate_json(self._path(ticket).read_bytes())
        self._write(note.model_copy(update={"engine_pid": pid, "engine_started": started}))

    def close(self, ticket: Ticket) -> None:
        """The attempt is over: its directory and its note go."""
        shutil.rmtree(self.runs / ticket.name, ignore_errors=True)
        self._path(ticket).unlink(missing_ok=True)

    def recover(self, client: ApiClient) -> list[Note]:
        """End what dead supervisors of this host left running, then give their jobs back in the background."""
        left = [note for note in self._read_all() if note.host == socket.gethostname() and not note.supervisor_lives()]
        for note in left:
            group = note.engine_pid
            if group is not None and not processes.is_alive(group, note.engine_started or ""):
                group = None  # the number may be someone else's by now
            processes.end_run(self.runs / note.ticket.name, group)
        if left:
            threading.Thread(target=self._release, args=(client, left), name="recover", daemon=True).start()
        self._sweep()
        return left

    def _release(self, client: ApiClient, left: list[Note]) -> None:
        for note in left:
            try:
                status = client.door(note.ticket, threading.Event()).release("lost", RELEASE_PATIENCE)
                log.info("%s: found dead, given back; the job is %s", note.ticket.name, status)
            except ApiTrouble as trouble:
                log.warning("%s: found dead, not given back (%s); its lease will expire", note.ticket.name, trouble)
            self.close(note.ticket)

    def _sweep(self) -> None:
        """Run directories that no note speaks of."""
        for run in self.runs.iterdir():
            if not (self._notes / f"{run.name}.json").exists():
                shutil.rmtree(run, ignore_errors=True)

    def _read_all(self) -> list[Note]:
        found = []
        for path in self._notes.glob("*.json"):
            try:
                found.append(Note.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as error:
                log.warning("the note %s cannot be read (%s) and is dropped", path.name, type(error).__name__)
                path.unlink(missing_ok=True)
        return found

    def _path(self, ticket: Ticket) -> Path:
        return self._notes / f"{ticket.name}.json"

    def _write(self, note: Note) -> None:
        path = self._path(note.ticket)
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(note.model_dump_json())
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
