"""The worker's heart: slots that work tickets off, whoever rings. Knows neither Celery nor torch nor the database."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import Any

import structlog
from pydantic import ValidationError

from ssl_core import tracing
from worker import processes
from worker.api_client import ApiClient, ApiTrouble, LeaseLost, Patience, Refused
from worker.attempt import Attempt
from worker.cache import Cache
from worker.notes import Notebook
from worker.settings import WorkerSettings

CLAIM_PATIENCE = 5.0
log = logging.getLogger(__name__)


class _Slots:
    """Slots of one kind, and whether a bell rang while all of them were taken."""

    def __init__(self, count: int, short: bool) -> None:
        self.free, self.short, self.missed = threading.Semaphore(count), short, threading.Event()

    def take(self) -> bool:
        """Or leave word for whoever holds one: a bell that rings while he hears that the queue is empty is not lost."""
        if self.free.acquire(blocking=False):
            return True
        self.missed.set()
        return self.free.acquire(blocking=False)


class Supervisor:
    """Claims jobs into a fixed number of slots, and those that train nothing into a few more.

    Args:
        settings: the worker's.

    Raises:
        OSError: the worker's folder cannot be written.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._client = ApiClient(settings)
        self._notebook = Notebook(settings.root)
        self._cache = Cache(settings.root, settings.cache_bytes)
        self._slots = [_Slots(settings.slots, short=False), _Slots(settings.short_slots, short=True)]
        self._running = threading.Condition()
        self._held = 0
        self.drain = threading.Event()

    def recover(self) -> None:
        """End and give back what an earlier worker on this host left behind. Call before the first claim."""
        for note in self._notebook.recover(self._client):
            log.warning("%s: its supervisor died; ending and releasing it", note.ticket.name)
        self._cache.evict()

    def ring(self, job_id: str | None) -> int:
        """Try to claim `job_id` (None = any) and work it off, then whatever else is queued; how many were done.

        Returns at once where all slots are taken: a slot that becomes free looks for more by itself.
        """
        for slots in self._slots:
            done = self._work(slots, job_id)
            if done is not None:
                return done
        return 0

    def _work(self, slots: _Slots, job_id: str | None) -> int | None:
        """How many jobs were done in a slot of this kind; None where all of them are taken."""
        done: int | None = None
        while not self.drain.is_set() and slots.take():
            done = done or 0
            slots.missed.clear()
            with self._running:
                self._held += 1
            try:
                while not self.drain.is_set() and self._claim_and_run(job_id, slots.short):
                    job_id, done = None, done + 1
            finally:
                self._give(slots)
            job_id = None
            if not slots.missed.is_set():
                break
        return done

    def wait_until_idle(self, seconds: float) -> bool:
        """False if a job is still held after `seconds`."""
        with self._running:
            return self._running.wait_for(lambda: self._held == 0, timeout=seconds)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def _give(self, slots: _Slots) -> None:
        slots.free.release()
        with self._running:
            self._held -= 1
            self._running.notify_all()

    def _claim_and_run(self, job_id: str | None, short: bool) -> bool:
        claimed_at = time.monotonic()
        try:
            ticket = self._client.claim(job_id, _whoami(), Patience(CLAIM_PATIENCE, self.drain), short)
        except Refused as refusal:
            log.error("the API refuses this worker: %s; is GROUNDWORK_WORKER_TOKEN the API's?", refusal)
            return False
        except LeaseLost:
            return False
        except (ApiTrouble, ValidationError) as trouble:
            log.warning("claiming failed: %s", trouble)
            return False
        if ticket is None:
            return False
        ids = {"job_id": ticket.job_id, "attempt": ticket.fence}
        traced = tracing.span(f"{ticket.spec.get('type')} attempt", "consumer", ticket.traceparent, **ids)
        with structlog.contextvars.bound_contextvars(**ids), traced:
            log.info("%s: claimed (%s)", ticket.name, ticket.spec.get("type"))
            attempt = Attempt(self._client, ticket, self._settings, self.drain, claimed_at)
            status = attempt.run(self._notebook, self._cache)
            log.info("%s: %s", ticket.name, status)
        self._cache.evict()
        return True


def _whoami() -> dict[str, Any]:
    host = socket.gethostname()
    return {"name": f"{host}-{os.getpid()}", "host": host, "pid": os.getpid(), "boot_id": processes.boot_id()}
