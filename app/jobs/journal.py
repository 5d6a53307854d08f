"""Writing a job's diary. Sequence numbers come from the job's own row, so they have no gaps and follow the commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from app.jobs import wakeups
from app.jobs.tables import Job, JobEvent

Level = Literal["info", "warning", "error"]
EventType = Literal["state", "message", "checkpoint", "sample"]


@dataclass(frozen=True)
class Entry:
    """One line of the diary. `code` is stable; `message` is for people."""

    type: EventType
    code: str
    message: str
    level: Level = "info"
    data: dict[str, Any] = field(default_factory=dict)


def record(session: Session, job: Job, entries: Sequence[Entry], at: int, **also: Any) -> None:
    """Append entries, raise the job's revision and set what `also` names. The caller holds the job's row."""
    last = session.execute(
        update(Job)
        .where(Job.id == job.id)
        .values(event_seq=Job.event_seq + len(entries), revision=Job.revision + 1, **also)
        .returning(Job.event_seq),
        execution_options={"synchronize_session": False},
    ).scalar_one()
    write(session, job, entries, last, at)


def write(session: Session, job: Job, entries: Sequence[Entry], last: int, at: int) -> None:
    """Insert entries whose sequence numbers end at `last`, already taken from the job's row."""
    first = last - len(entries) + 1
    rows = [
        {
            "id": event_id(job.id, first + index), "job_id": job.id, "seq": first + index, "fence": job.fence,
            "type": entry.type, "level": entry.level, "code": entry.code, "message": entry.message,
            "data": entry.data, "created_at": at,
        }
        for index, entry in enumerate(entries)
    ]  # fmt: skip
    if rows:
        session.execute(insert(JobEvent), rows)
    wakeups.changed(session, job.id)


def event_id(job_id: str, seq: int) -> str:
    """`evt_<the job's own part><seq>`: unique everywhere, and sorted in the order of the diary."""
    return f"evt_{job_id.removeprefix('job_')}{seq:010d}"
