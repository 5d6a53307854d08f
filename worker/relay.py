"""The relay: one thread that carries a run's events, samples, checkpoints and raw output to the API, in order.

The files are the spool. While the API is away the thread waits with the batch it has; nothing else is held in memory,
and what was not acknowledged is read again. Repeats are harmless: events are keyed (attempt, seq).
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from ssl_core import tracing
from worker import logs
from worker.api_client import ApiTrouble, Door, LeaseLost, Refused
from worker.settings import WorkerSettings
from worker.tail import EventTail, LogTail
from worker.upload import CheckpointUploader, post_events, put_sample

EVERY = 0.3  # seconds between looks at the files
log = logging.getLogger(__name__)


class Relay:
    """Starts its thread at once.

    Args:
        run: the run directory.
        door: the attempt's door; its abort event ends every wait.
        settings: caps and patience.
    """

    def __init__(self, run: Path, door: Door, settings: WorkerSettings) -> None:
        self._run, self._door, self._patience = run, door, settings.report_seconds
        self._events = EventTail(run / "events.jsonl")
        self._log = LogTail(run / "log.txt", settings.max_log_bytes)
        self._log_offset = 0
        self.uploader = CheckpointUploader(run, door, settings.report_seconds)
        self._last_round, self._lost = threading.Event(), threading.Event()
        self._thread = logs.thread(self._work, f"relay-{run.name}")
        self._thread.start()

    def size(self) -> int:
        """Bytes of events the engine wrote so far; growth is progress."""
        return self._events.size()

    def finish(self, seconds: float) -> bool:
        """The engine is dead: carry the rest, checkpoints too, within `seconds`. False if something stayed behind."""
        until = time.monotonic() + seconds
        self._last_round.set()
        self._thread.join(timeout=max(seconds, 0))
        uploaded = self.uploader.finish(until - time.monotonic())
        return uploaded and self.delivered

    @property
    def delivered(self) -> bool:
        """After `finish`: whether the API has every event."""
        return not self._thread.is_alive() and not self._lost.is_set()

    def _work(self) -> None:
        while True:
            last = self._last_round.is_set()
            try:
                while self._pump_events():
                    pass
                while self._pump_log():
                    pass
            except LeaseLost:
                self._lost.set()
                return
            except (ApiTrouble, OSError, ValueError) as trouble:
                log.warning("%s: relaying stopped for now (%s)", self._run.name, trouble)
                if last:
                    self._lost.set()
                    return
            else:
                if last:
                    return
            self._last_round.wait(EVERY)

    def _pump_events(self) -> bool:
        ready: list[dict[str, Any]] = []
        for event in self._events.read():
            if event["type"] == "stage":
                tracing.event(event["stage"])
            if event["type"] == "checkpoint":
                # Its metrics go first: a resume from this step must find no gap before it (R9).
                post_events(self._door, ready, self._patience)
                ready = []
                self.uploader.offer(event)
            elif event["type"] != "sample" or put_sample(self._door, self._run, event, self._patience):
                ready.append(event)
        post_events(self._door, ready, self._patience)
        return self._events.commit()

    def _pump_log(self) -> bool:
        text, end = self._log.read()
        if text:
            try:
                self._log_offset = self._door.logs(self._log_offset, text, self._patience)
            except Refused as refusal:  # output is worth less than the events behind it
                log.warning("%s: a piece of output was refused: %s", self._run.name, refusal)
            self._log.commit(end)
        return bool(text)
