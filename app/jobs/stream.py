"""A job live, as server-sent events: the diary with resumable ids, progress between its lines, and an end.

A stream holds no database session while it waits, and no thread: it sleeps on one event that a commit in this process
sets at once, and the watcher thread (app/reaper.py) sets for commits elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sse_starlette import ServerSentEvent

from app.jobs import points, reading, wakeups
from app.jobs.schemas import EventObject, as_event
from app.jobs.states import TERMINAL
from app.jobs.tables import Job, JobEvent
from app.live import Pulse
from app.platform import Platform, read_scope
from app.threads import in_thread

_BATCH = 200
_LOOK_SECONDS = 10.0
"""A stream looks at the database on its own this often, in case every wake-up was lost."""


@dataclass(frozen=True)
class _View:
    """What one look at the database saw."""

    events: list[EventObject]
    status: str
    progress: dict[str, Any] | None
    metrics: dict[str, float | str | None]


async def follow(platform: Platform, job_id: str, after: int, pulse: Pulse) -> AsyncGenerator[ServerSentEvent, None]:
    """Events `job.event` (with id), `progress` and, once the job has ended, `done`; starts after diary line `after`."""
    stop = wakeups.watch(job_id, pulse.wake)
    shown: dict[str, Any] | None = None
    try:
        while not pulse.over:
            pulse.rest()
            view = await in_thread(_look, platform, job_id, after)
            for event in view.events:
                after = reading.event_position(job_id, event.id)
                yield ServerSentEvent(event.model_dump_json(), event="job.event", id=event.id)
            if len(view.events) == _BATCH:
                continue
            if view.progress is not None and view.progress != shown:
                shown = view.progress
                yield _sent("progress", {"status": view.status, "progress": shown, "metrics": view.metrics})
            if view.status in TERMINAL:
                yield _sent("done", {"status": view.status})
                return
            if not await pulse.wait(_LOOK_SECONDS):
                yield ServerSentEvent(comment="ping")  # what lies between would take a silent connection for dead
    finally:
        stop()


def _look(platform: Platform, job_id: str, after: int) -> _View:
    with read_scope(platform) as session:
        # Status first: an end that commits between the two reads is seen, with its last lines, by the next look.
        status, progress = session.execute(select(Job.status, Job.progress).where(Job.id == job_id)).one()
        query = reading.events(job_id).where(JobEvent.seq > after).order_by(JobEvent.seq).limit(_BATCH)
        events = [as_event(row) for row in session.scalars(query)]
        metrics = points.latest(session, job_id, progress["step"]) if progress and progress.get("step") else {}
        return _View(events, status, progress, metrics)


def _sent(name: str, content: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(content, separators=(",", ":")), event=name)
