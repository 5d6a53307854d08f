"""Who wants to know at once, inside this process: the outbox thread and the live streams.

Only a hint. Each of them also looks at the database on its own, so a lost or foreign wake-up costs latency, not truth.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy.orm import Session

from app.db import after_commit

outbox = threading.Event()
"""Set when a committed transaction has left a doorbell to be rung."""

_watchers: dict[str, set[Callable[[], None]]] = {}
_lock = threading.Lock()
_TOLD = "groundwork.told"


def watch(job_id: str, wake: Callable[[], None]) -> Callable[[], None]:
    """Call `wake` (from any thread) after each committed change of the job; returns what ends it."""
    with _lock:
        _watchers.setdefault(job_id, set()).add(wake)

    def stop() -> None:
        with _lock:
            mine = _watchers.get(job_id, set())
            mine.discard(wake)
            if not mine:
                _watchers.pop(job_id, None)

    return stop


def watched() -> list[str]:
    """Jobs that someone in this process watches."""
    with _lock:
        return list(_watchers)


def wake(job_id: str) -> None:
    """Wake the job's watchers now."""
    with _lock:
        callbacks = list(_watchers.get(job_id, ()))
    for callback in callbacks:
        callback()


def changed(session: Session, job_id: str) -> None:
    """Wake the job's watchers once this transaction is committed."""
    told: set[str] = session.info.setdefault(_TOLD, set())
    if job_id in told:
        return

    def tell() -> None:
        told.discard(job_id)
        wake(job_id)

    told.add(job_id)
    after_commit(session, tell)


def doorbell(session: Session) -> None:
    """Wake the outbox thread once this transaction is committed."""
    after_commit(session, outbox.set)
