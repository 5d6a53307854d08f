"""What the background threads look for: doorbells to ring, leases that ran out, graces and waits that are over.

Each sweep first finds ids without holding anything, then settles one job per transaction: a sweep that dies halfway
has done whole steps only, and two processes that sweep at once find the job already moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.jobs import endings, label_efficiency, parts, transitions
from app.jobs.clock import now
from app.jobs.limits import BATCH_MS, Limits
from app.jobs.states import HELD, TERMINAL, Status
from app.jobs.tables import PARTS, Job, Outbox

BATCH = 200
_EXPIRES = (Status.QUEUED, Status.RUNNING)


class Ring(NamedTuple):
    """A doorbell to ring; `outbox` is the row to delete once it is rung, None for a second ring."""

    job_id: str
    queue: str
    outbox: int | None


def due_rings(session: Session) -> list[Ring]:
    """Outbox rows whose time has come, oldest first."""
    query = select(Outbox.job_id, Outbox.queue, Outbox.id).where(Outbox.due_at <= now(session))
    return [Ring(*row) for row in session.execute(query.order_by(Outbox.due_at, Outbox.id).limit(BATCH))]


def unclaimed(session: Session, limits: Limits, queue: str) -> list[Ring]:
    """Queued jobs that nobody took a while after their last ring: the message may be lost (R2)."""
    at = now(session)
    waiting = (Job.status == Status.QUEUED, Job.queue == queue, Job.available_at <= at)
    query = select(Job.id, Job.queue).where(*waiting, Job.rung_at <= at - limits.reconcile_ms)
    return [Ring(*row, None) for row in session.execute(query.order_by(Job.rung_at, Job.id).limit(BATCH))]


def rung(session: Session, rings: Sequence[Ring]) -> None:
    """These were published."""
    done = [ring.outbox for ring in rings if ring.outbox is not None]
    session.execute(delete(Outbox).where(Outbox.id.in_(done)))
    ids = [ring.job_id for ring in rings]
    session.execute(
        update(Job).where(Job.id.in_(ids), Job.status == Status.QUEUED).values(rung_at=now(session)),
        execution_options={"synchronize_session": False},
    )


def overdue(session: Session, limits: Limits) -> list[str]:
    """Jobs whose lease or grace ran out, or that waited longer than anything may."""
    at = now(session)
    held = select(Job.id).where(Job.status.in_(HELD), Job.lease_expires <= at).limit(BATCH)
    grace = select(Job.id).where(Job.status == Status.CANCELLING, Job.grace_expires <= at).limit(BATCH)
    waited = select(Job.id).where(Job.status == Status.QUEUED, Job.available_at <= at - limits.max_wait_ms).limit(BATCH)
    return sorted({id for query in (held, grace, waited) for id in session.scalars(query)})


def late_batches(session: Session) -> list[str]:
    """Batches that are past their window; one that its owner has paused waits for its owner."""
    late = (Job.type == "batch", Job.created_at <= now(session) - BATCH_MS)
    return list(session.scalars(select(Job.id).where(Job.status.in_(_EXPIRES), *late).limit(BATCH)))


def expire_batch(session: Session, job_id: str) -> None:
    """Look again under the lock, and end the batch if it still goes on. Its worker is told at its next call."""
    job = transitions.lock(session, job_id)
    if job is None or job.status not in _EXPIRES:
        return
    message = f"The batch did not end within {BATCH_MS // 3_600_000} hours."
    error = {"class": "infra", "code": endings.EXPIRED, "message": message, "param": None}
    end = transitions.fail_queued if job.status == Status.QUEUED else transitions.fail
    end(session, job, error)


def revisions(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """How often each of these jobs has changed."""
    rows = session.execute(select(Job.id, Job.revision).where(Job.id.in_(job_ids)))
    return {row.id: row.revision for row in rows}


def advance(session: Session, job_id: str, limits: Limits) -> None:
    """Move a job that is made of jobs as far as its parts allow."""
    job = transitions.lock(session, job_id)
    if job is None or job.status in TERMINAL or job.status == Status.PAUSED:
        return
    found = parts.of(session, job_id)
    if parts.settle(session, job, found, limits):
        parts.add(session, job, [label_efficiency.finish(session, job, found)])


def requeue_held(session: Session) -> int:
    """After a restore: whoever held these jobs holds them no more, and they go on from their last checkpoint."""
    held = select(Job.id).where(Job.status.in_(HELD), Job.queue != PARTS)
    jobs = [job for job_id in session.scalars(held).all() if (job := transitions.lock(session, job_id)) is not None]
    for job in jobs:
        transitions.release(session, job)
    return len(jobs)


def settle(session: Session, job_id: str, limits: Limits) -> None:
    """Look again under the lock, and move the job if it still is overdue."""
    job, at = transitions.lock(session, job_id), now(session)
    if job is None:
        return
    if job.status in HELD and job.lease_expires is not None and job.lease_expires <= at:
        message = "Its worker sent no sign of life until the lease ran out."
        error = {"class": "infra", "code": transitions.LEASE_EXPIRED, "message": message, "param": None}
        transitions.lose(session, job, error, limits)
    elif job.status == Status.CANCELLING and job.grace_expires is not None and job.grace_expires <= at:
        transitions.expire_grace(session, job)
    elif job.status == Status.QUEUED and job.available_at <= at - limits.max_wait_ms:
        days = limits.max_wait_ms / 86_400_000
        message = f"No worker took the job within {days:g} days; start a worker for the queue {job.queue!r}."
        error = {"class": "infra", "code": "wait_expired", "message": message, "param": None}
        transitions.fail_queued(session, job, error)
