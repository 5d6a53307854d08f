"""One attempt at one job, top to bottom: fetch, run, watch, report."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from ssl_core import tracing
from worker.api_client import ApiClient, ApiTrouble, LeaseLost, Refused, Unreachable
from worker.cache import Cache, DigestMismatch
from worker.engine import Engine, StopWord
from worker.inputs import Fetcher, Interrupted
from worker.notes import Notebook
from worker.pulse import Pulse
from worker.relay import Relay
from worker.settings import WorkerSettings
from worker.ticket import Ticket
from worker.upload import BadOutput, put_folder

TICK = 0.1
DUMP_SECONDS = 2.0
log = logging.getLogger(__name__)


class Attempt:
    """Owns the engine of one ticket until its verdict is known to the API, or no longer wanted.

    Args:
        client: the API.
        ticket: what to do.
        settings: limits and grace periods.
        drain: set when the worker is to stop.
        claimed_at: monotonic time before the claim was sent.
    """

    def __init__(
        self, client: ApiClient, ticket: Ticket, settings: WorkerSettings, drain: threading.Event, claimed_at: float
    ) -> None:
        self._ticket, self._settings, self._drain = ticket, settings, drain
        self._drained_at: float | None = None
        self._pulse = Pulse(ticket, claimed_at)
        self._door = client.door(ticket, self._pulse.gone)

    def run(self, notebook: Notebook, cache: Cache) -> str:
        """Work the ticket off; returns the job's status, or `lost` where it is someone else's now. Never raises."""
        self._pulse.start(self._door)
        try:
            run = notebook.open(self._ticket)
            with tracing.span("inputs"):
                fetcher = Fetcher(self._door, cache, self._settings.report_seconds, self._interrupted)
                stopped = self._fetch(fetcher, run)
            return stopped or self._train(Engine(run, self._settings), notebook)
        except ApiTrouble as trouble:
            log.warning("%s: given up: %s", self._ticket.name, trouble)
            return "lost"
        except Exception:
            # Our own fault, whatever it is: the job must not wait for its lease to expire to hear of it.
            log.exception("%s: the worker failed", self._ticket.name)
            return self._last_word()
        finally:
            self._pulse.stop()
            notebook.close(self._ticket)

    def _fetch(self, fetcher: Fetcher, run: Path) -> str | None:
        """None once everything is here; else the status of a job that ended before it began."""
        try:
            fetcher.fill(run, self._ticket, self._settings)
        except Interrupted:
            return self._door.release(self._word() or "drain", self._patience())
        except (Refused, DigestMismatch, OSError) as error:
            code = "disk_full" if getattr(error, "errno", None) == 28 else "input_unavailable"
            return self._fail("infra", code, f"The inputs could not be fetched: {error}")
        return None

    def _train(self, engine: Engine, notebook: Notebook) -> str:
        # The engine reaches nothing and is told nothing of us: its span is ours, its stages are the moments in it.
        with tracing.span("engine"):
            notebook.engine_started(self._ticket, *engine.start())
            relay = Relay(engine.run, self._door, self._settings)
            try:
                failure = self._watch(engine, relay)
            finally:
                engine.kill()  # also what it left behind in other sessions
        if self._pulse.gone.is_set():
            raise LeaseLost("the engine was stopped and its work dropped")
        # The engine is dead: from here its results count until the API itself says otherwise.
        self._pulse.stop_fencing()
        if not relay.finish(self._patience()):
            log.warning("%s: not everything the run wrote reached the API", self._ticket.name)
        with tracing.span("result"):
            return self._fail("infra", *failure) if failure else self._report(engine, relay.delivered)

    def _watch(self, engine: Engine, relay: Relay) -> tuple[str, str] | None:
        """Return when the engine is gone or must go; code and message where it is we who end it for a fault."""
        progress, moved_at = 0, time.monotonic()
        while engine.returncode() is None and not self._pulse.overdue():
            if word := self._word():
                engine.ask(word)
            if engine.asked and engine.asked_for() > self._grace(engine.asked):
                log.warning("%s: did not stop in time; killing it", self._ticket.name)
                return None
            size = relay.size()
            if size > self._settings.max_event_bytes:
                return "too_many_events", f"The run wrote more than {size:,} bytes of events."
            if size != progress:
                progress, moved_at = size, time.monotonic()
            if time.monotonic() - moved_at > self._settings.stall_seconds:
                engine.dump_stacks()
                time.sleep(DUMP_SECONDS)
                quiet = f"{self._settings.stall_seconds:g}"
                return "engine_stalled", f"The run showed no progress for {quiet} s; its stacks are in the log."
            time.sleep(TICK)
        return None

    def _report(self, engine: Engine, delivered: bool) -> str:
        verdict = engine.verdict()
        has_result = (engine.run / "result.json").exists()
        asked, status = engine.asked, verdict["status"]
        if status == "succeeded" and not delivered:
            # Its curve would have a hole. Before the last checkpoint, where the next attempt begins, there is none.
            raise Unreachable("the end of the run's events did not reach the API")
        if status == "succeeded":
            return self._complete(engine, verdict)
        if asked in ("cancel", "pause") or (asked and not has_result):
            return self._door.release(asked, self._patience())
        if status == "stopped":
            return self._door.release(asked or "drain", self._patience())
        return self._door.fail(_envelope(verdict.get("error")), self._patience())

    def _complete(self, engine: Engine, verdict: dict[str, Any]) -> str:
        try:
            manifest = put_folder(self._door, engine.run / "artifact", "artifact", self._patience())
            return self._door.complete(manifest["files"], verdict, self._patience())
        except (BadOutput, Refused, OSError, ValueError) as error:
            return self._fail("infra", "bad_artifact", f"The run's result could not be stored: {error}")

    def _fail(self, kind: str, code: str, message: str) -> str:
        log.warning("%s: %s", self._ticket.name, message)
        return self._door.fail(_envelope({"class": kind, "code": code, "message": message}), self._patience())

    def _last_word(self) -> str:
        try:
            return self._fail("infra", "worker_failed", "The worker itself failed; its log says why.")
        except ApiTrouble:
            return "lost"

    def _word(self) -> StopWord | None:
        """What the run should stop for: the user's wish goes before the worker's."""
        command = self._pulse.command
        if command == "cancel":
            return "cancel"
        if command == "pause":
            return "pause"
        return "drain" if self._drain.is_set() else None

    def _interrupted(self) -> bool:
        return self._word() is not None or self._pulse.overdue()

    def _grace(self, word: StopWord) -> float:
        # Of a drain's time, the last quarter is for the upload and the release.
        return self._settings.grace_seconds if word != "drain" else 0.75 * self._settings.drain_seconds

    def _patience(self) -> float:
        """How long to wait for the API; while draining, what is left of that time."""
        if not self._drain.is_set():
            return self._settings.report_seconds
        self._drained_at = self._drained_at or time.monotonic()
        return max(1.0, self._drained_at + self._settings.drain_seconds - time.monotonic())


def _envelope(error: Any) -> dict[str, Any]:
    """An error as the door wants it, whatever the engine wrote."""
    given = error if isinstance(error, dict) else {}
    kind = given.get("class") if given.get("class") in ("user", "data", "infra", "oom") else "infra"
    param = given.get("param")
    return {
        "class": kind, "code": str(given.get("code") or "engine_failed")[:64],
        "message": str(given.get("message") or "The run failed without a message.")[:4000],
        "param": None if param is None else str(param)[:400],
    }  # fmt: skip
