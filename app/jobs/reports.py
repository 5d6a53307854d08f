"""What a running attempt tells: events and raw output. Sent twice, shuffled or late, the rows end the same (R8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.errors import Unprocessable
from app.ids import new_id
from app.jobs import attempts, journal, points
from app.jobs.clock import now
from app.jobs.tables import Attempt, Checkpoint, Job, LogChunk, Sample
from ssl_core.events import Event, MessageEvent, MetricsEvent, ProgressEvent, SampleEvent, StageEvent

MAX_LOG_BYTES = 32 * 2**20
RESUMED = "resumed"
"""Code of the message with which the engine says from which step it goes on."""
_MAX_GAPS = 256


def accept_events(session: Session, attempt: Attempt, fence: int, events: Sequence[Event]) -> int:
    """Take each event of the attempt once. Returns the highest `seq` up to which none is missing.

    Raises:
        LeaseLost: another attempt owns the job.
        Unprocessable: over a limit, or too many holes in the numbering.
    """
    job = attempts.hold(session, attempt, fence)
    taken = [(low, high) for low, high in attempt.accepted]
    fresh = {event.seq: event for event in events if not any(low <= event.seq <= high for low, high in taken)}
    if fresh:
        merged = _merge([*taken, *((seq, seq) for seq in fresh)])
        if len(merged) > _MAX_GAPS:
            raise Unprocessable("too_many_gaps", "Send the events in the order of their `seq`.", "events")
        _take(session, job, attempt, [fresh[seq] for seq in sorted(fresh)])
        attempt.accepted = [list(each) for each in merged]
        session.flush()
    first = attempt.accepted[0] if attempt.accepted else [0, 0]
    return first[1] if first[0] == 1 else 0


def append_log(session: Session, attempt: Attempt, fence: int, offset: int, text: str) -> int:
    """Keep a piece of raw output; one that was sent before is ignored. Returns where the next piece belongs.

    Past `MAX_LOG_BYTES` an attempt's output is counted and dropped: a chatty run is not a failed one.
    """
    attempts.hold(session, attempt, fence)
    size = len(text.encode())
    if offset < attempt.log_offset or not size:
        return attempt.log_offset
    if offset + size <= MAX_LOG_BYTES:
        # PostgreSQL text cannot hold NUL.
        chunk = text.replace("\x00", "\ufffd")
        session.add(LogChunk(job_id=attempt.job_id, fence=attempt.fence, offset=offset, size=size, text=chunk))
    attempt.log_offset = offset + size
    session.flush()
    return attempt.log_offset


def _take(session: Session, job: Job, attempt: Attempt, events: Sequence[Event]) -> None:
    at = now(session)
    _supersede(session, job, attempt, events)
    readings = [
        points.Reading.of(name, event.step, value)
        for event in events
        if isinstance(event, MetricsEvent)
        for name, value in event.values.items()
    ]
    if readings:
        points.write(session, job, readings)
    for event in events:
        if isinstance(event, SampleEvent):
            _keep_sample(session, job, event, at)
    values: dict[str, Any] = {"points": Job.points + len(readings)}
    progress = _progress(job, attempt, events)
    if progress is not None:
        values["progress"] = progress
    _note_step(attempt, events)
    entries = [entry for event in events if (entry := _entry(event)) is not None]
    journal.record(session, job, entries, at, **values)


def _entry(event: Event) -> journal.Entry | None:
    if isinstance(event, MessageEvent):
        about = {"step": event.step, "line": event.line, "param": event.param}
        data: dict[str, Any] = {name: value for name, value in about.items() if value is not None}
        return journal.Entry("message", event.code, event.message, event.level, data)
    if isinstance(event, StageEvent):
        return journal.Entry("message", "stage", f"Stage: {event.stage}.", data={"stage": event.stage})
    if isinstance(event, SampleEvent):
        text = event.caption or f"Sample {event.name} at step {event.step}."
        return journal.Entry("sample", "sample", text, data={"step": event.step, "name": event.name})
    return None


def _progress(job: Job, attempt: Attempt, events: Sequence[Event]) -> dict[str, Any] | None:
    """The newest progress of the batch, if it is newer than what is known."""
    seen = [e for e in events if isinstance(e, ProgressEvent | StageEvent) and e.seq > attempt.progress_seq]
    if not seen:
        return None
    shown = dict(job.progress or {"stage": None, "step": 0, "total_steps": None})
    for event in seen:
        if event.stage == "training" != shown["stage"]:  # it counts its own steps, not those of preparing
            shown = {"stage": None, "step": 0, "total_steps": None}
        shown["stage"] = event.stage
        if isinstance(event, ProgressEvent):
            fields = {"step", "total_steps", "examples_per_second", "eta_seconds"}
            shown |= event.model_dump(include=fields)
            shown["percent"] = round(min(100.0, 100 * event.step / event.total_steps), 2) if event.total_steps else 0.0
    attempt.progress_seq = seen[-1].seq
    return shown


def _note_step(attempt: Attempt, events: Sequence[Event]) -> None:
    steps = [e.step for e in events if isinstance(e, MetricsEvent)]
    steps += [e.step for e in events if isinstance(e, ProgressEvent) and e.stage == "training"]
    if steps:
        attempt.last_step = max(*steps, attempt.last_step or 0)


def _supersede(session: Session, job: Job, attempt: Attempt, events: Sequence[Event]) -> None:
    """R9. The engine says where it resumed; where it did not, the checkpoint below its first metrics tells."""
    told = [e.step for e in events if isinstance(e, MessageEvent) and e.code == RESUMED and e.step is not None]
    if told:
        attempt.resume_step = told[-1]
        points.supersede(session, job, told[-1])
        session.execute(
            update(Checkpoint)
            .where(Checkpoint.job_id == job.id, Checkpoint.fence < job.fence, Checkpoint.step > told[-1])
            .values(superseded=True),
            execution_options={"synchronize_session": False},
        )
        return
    steps = [e.step for e in events if isinstance(e, MetricsEvent)]
    if steps and attempt.resume_step is None and attempt.fence > 1:
        below = (Checkpoint.job_id == job.id, Checkpoint.superseded.is_(False), Checkpoint.step <= min(steps))
        attempt.resume_step = session.scalar(select(func.max(Checkpoint.step)).where(*below)) or 0
        points.supersede(session, job, attempt.resume_step)


def _keep_sample(session: Session, job: Job, event: SampleEvent, at: int) -> None:
    query = select(Sample).where(Sample.job_id == job.id, Sample.step == event.step, Sample.name == event.name)
    row = session.scalar(query)
    if row is None:
        count = session.execute(select(func.count()).where(Sample.job_id == job.id)).scalar_one()
        if count >= 10_000:
            raise Unprocessable("too_many_samples", "A job may have 10000 samples.", "events")
        row = Sample(id=new_id("smp"), job_id=job.id, step=event.step, name=event.name, created_at=at)
        session.add(row)
    row.fence, row.path, row.media_type, row.caption = job.fence, event.path, event.media_type, event.caption
    session.flush()


def _merge(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged
