"""Every move of a job. Nothing else in the product writes `jobs.status` (reliability.md §2).

Each function below is one decision: it takes the job's row (locked, so that what it reads is what it changes), picks a
move of `states.MOVES`, and writes it as a compare-and-set on status and fence, with the event, the attempt's end and
the doorbell in the same transaction. What other domains must hear about an end is told by `endings.settle`, also there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.errors import Conflict
from app.jobs import endings, journal, measures, turns, wakeups
from app.jobs.clock import now
from app.jobs.limits import Limits
from app.jobs.states import HELD, LEGAL, TERMINAL, Outcome, Status
from app.jobs.tables import PARTS, Attempt, Job, Outbox
from app.jobs.turns import Wanted

KILLED, LEASE_EXPIRED, WORKER_LOST, DISK_FULL = "engine_killed", "lease_expired", "worker_lost", "disk_full"
"""Codes of losses that came from outside: a SIGKILL, a vanished machine or a full disk may strike at any step."""


@dataclass(frozen=True)
class Step:
    """A decided move: where to, how it reads in the diary, and what else changes with it."""

    target: Status
    message: str
    outcome: Outcome | None = None
    level: journal.Level = "info"
    data: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class LeaseLost(Conflict):
    """Another attempt owns the job now, or nobody does (R6)."""

    def __init__(self) -> None:
        super().__init__("lease_lost", "This attempt no longer holds the job; stop it and drop its work.", "fence")


class IllegalMove(RuntimeError):
    """A bug: a move that the table does not hold was about to be written."""


def lock(session: Session, job_id: str) -> Job | None:
    """The job's row as it is now, held until the transaction ends."""
    query = select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    return session.scalar(query)


def claim(session: Session, wanted: Wanted, limits: Limits) -> Job | None:
    """queued -> running for this job, or for the one whose turn it is; None where there is nothing to take (R4).

    One conditional UPDATE: PostgreSQL skips rows that others hold, SQLite is already alone in its transaction.
    """
    seen = turns.look(session, wanted)
    at = seen.at
    job: Job | None = None
    for chosen in turns.choices(session, wanted, seen):
        job = session.execute(
            update(Job)
            .where(chosen, *wanted.ready(at))
            .values(
                status=Status.RUNNING, fence=Job.fence + 1, lease_expires=at + limits.lease_ms, grace_expires=None,
                started_at=func.coalesce(Job.started_at, at), event_seq=Job.event_seq + 1, revision=Job.revision + 1,
            )
            .returning(Job),
            execution_options={"synchronize_session": False, "populate_existing": True},
        ).scalar_one_or_none()  # fmt: skip
        if job is not None:
            break
    if job is None:
        return None
    data = {"from": Status.QUEUED, "to": Status.RUNNING, "attempt": job.fence}
    entry = journal.Entry("state", Status.RUNNING, f"Attempt {job.fence} started.", data=data)
    journal.write(session, job, [entry], job.event_seq, at)
    measures.moved(session, job, Status.QUEUED)
    return job


def start_parts(session: Session, job: Job) -> None:
    """queued -> running for a job made of jobs, once one of its parts has begun. No lease: nobody holds it."""
    _apply(session, job, Step(Status.RUNNING, "The first of its parts began.", values={"started_at": now(session)}))


def holds(job: Job, fence: int) -> bool:
    """Whether the attempt with this fence still owns the job. An expired lease that nobody took counts (R5)."""
    return job.fence == fence and job.status in HELD


def cancel(session: Session, job: Job, limits: Limits) -> None:
    """Durable intent to end the job (R10). Again is a no-op; raises Conflict `invalid_state` once it has ended."""
    if job.status in (Status.CANCELLING, Status.CANCELLED):
        return
    if job.status in TERMINAL:
        raise _invalid(job, "cancelled", "queued, running, pausing or paused")
    if job.status in HELD:
        values = {"grace_expires": now(session) + limits.grace_ms}
        _apply(session, job, Step(Status.CANCELLING, "A cancel was asked for.", values=values))
    else:
        _apply(session, job, Step(Status.CANCELLED, "The job was cancelled before a worker held it."))


def pause(session: Session, job: Job) -> None:
    """Stop and keep the last checkpoint. Again is a no-op; raises Conflict `invalid_state` elsewhere."""
    if job.status in (Status.PAUSING, Status.PAUSED):
        return
    if job.status == Status.QUEUED:
        _apply(session, job, Step(Status.PAUSED, "The job was paused before a worker held it."))
    elif job.status == Status.RUNNING:
        _apply(session, job, Step(Status.PAUSING, "A pause was asked for."))
    else:
        raise _invalid(job, "paused", "queued or running")


def resume(session: Session, job: Job) -> None:
    """Queue a paused job again. Raises Conflict `invalid_state` elsewhere; again while queued is a no-op."""
    if job.status == Status.QUEUED:
        return
    if job.status != Status.PAUSED:
        raise _invalid(job, "resumed", "paused")
    _queue(session, job, Step(Status.QUEUED, "The job was resumed."), wait_ms=0)


def succeed(session: Session, job: Job, result: dict[str, Any]) -> None:
    """The attempt delivered. The caller holds the lease and has committed the artefact rows."""
    if job.status == Status.CANCELLING:
        _apply(session, job, Step(Status.CANCELLED, "It finished after the cancel.", Outcome.CANCELLED))
        return
    _apply(session, job, Step(Status.SUCCEEDED, "The job succeeded.", Outcome.SUCCEEDED, values={"result": result}))


def fail(session: Session, job: Job, error: dict[str, Any]) -> None:
    """The attempt reported an error that a retry would not mend: user, data or oom (R11)."""
    if job.status == Status.CANCELLING:
        _apply(session, job, Step(Status.CANCELLED, "It stopped after the cancel.", Outcome.CANCELLED))
        return
    _apply(session, job, _failure(error, Outcome.FAILED))


def release(session: Session, job: Job) -> None:
    """The worker gives the job back in good order; no budget is spent."""
    if job.status == Status.CANCELLING:
        _apply(session, job, Step(Status.CANCELLED, "The job was cancelled.", Outcome.CANCELLED))
    elif job.status == Status.PAUSING:
        _apply(session, job, Step(Status.PAUSED, "The job is paused.", Outcome.PAUSED))
    else:
        _queue(session, job, Step(Status.QUEUED, "Its worker gave the job back.", Outcome.RELEASED), wait_ms=0)


def lose(session: Session, job: Job, error: dict[str, Any], limits: Limits) -> None:
    """The attempt is gone: lease expired, worker or engine killed. Queued again within the infra budget (R11)."""
    if job.status == Status.CANCELLING:
        _apply(session, job, Step(Status.CANCELLED, "The job was cancelled; its worker is gone.", Outcome.CANCELLED))
        return
    if job.status == Status.PAUSING:
        _apply(session, job, Step(Status.PAUSED, "The job is paused; its worker is gone.", Outcome.LOST))
        return
    losses, step = job.infra_losses + 1, _last_step(session, job)
    counted: dict[str, Any] = {"infra_losses": losses, "crash_code": error["code"], "crash_step": step}
    if _is_poison(job, error["code"], step):
        text = f"The run died twice at the same step {step} ({error['message']}); it would do so again."
        error = {**error, "code": "poison_job", "message": text}
        _apply(session, job, _failure(error, Outcome.LOST, counted))
    elif losses > limits.max_infra_losses:
        allowed = f"more than the {limits.max_infra_losses} allowed"
        text = f"The run was lost {losses} times, {allowed}. Last: {error['message']}"
        _apply(session, job, _failure({**error, "message": text}, Outcome.LOST, counted))
    else:
        wait = limits.backoff(losses)
        after = f"Loss {losses} of {limits.max_infra_losses} allowed; next start in {wait / 1000:g} s."
        text = f"{error['message']} {after}"
        data = {"error": error, "infra_losses": losses}
        _queue(session, job, Step(Status.QUEUED, text, Outcome.LOST, "warning", data, counted), wait_ms=wait)


def fail_queued(session: Session, job: Job, error: dict[str, Any]) -> None:
    """It waited too long."""
    _apply(session, job, _failure(error, None))


def expire_grace(session: Session, job: Job) -> None:
    """The worker did not let go in time after a cancel; whatever it still sends is refused."""
    _apply(session, job, Step(Status.CANCELLED, "Its worker did not answer the cancel in time.", Outcome.CANCELLED))


def _failure(error: dict[str, Any], outcome: Outcome | None, values: dict[str, Any] | None = None) -> Step:
    return Step(Status.FAILED, error["message"], outcome, "error", {"error": error}, {**(values or {}), "error": error})


def _queue(session: Session, job: Job, step: Step, wait_ms: int) -> None:
    due = now(session) + wait_ms
    if job.queue != PARTS:
        session.add(Outbox(job_id=job.id, queue=job.queue, due_at=due))
    values = {**step.values, "available_at": due, "rung_at": due}
    _apply(session, job, Step(step.target, step.message, step.outcome, step.level, step.data, values))
    wakeups.doorbell(session)


def _apply(session: Session, job: Job, step: Step) -> None:
    """The compare-and-set, the attempt's end, the diary, and what others must hear."""
    source, at = Status(job.status), now(session)
    if (source, step.target) not in LEGAL:
        raise IllegalMove(f"{job.id}: {source} -> {step.target}")
    values: dict[str, Any] = {**step.values, "status": step.target, "lease_expires": None}
    if step.target in HELD:
        values.pop("lease_expires")
    if step.target in TERMINAL:
        values["finished_at"] = at
    changed = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.status == source, Job.fence == job.fence)
        .values(event_seq=Job.event_seq + 1, revision=Job.revision + 1, **values)
        .returning(Job.event_seq),
        execution_options={"synchronize_session": False},
    ).scalar_one_or_none()
    if changed is None:
        raise LeaseLost
    if step.outcome is not None:
        ended = {"ended_at": at, "outcome": step.outcome, "reason": step.message}
        session.execute(update(Attempt).where(Attempt.job_id == job.id, Attempt.fence == job.fence).values(**ended))
    data = {"from": source, "to": step.target, **step.data}
    journal.write(session, job, [journal.Entry("state", step.target, step.message, step.level, data)], changed, at)
    session.refresh(job)
    measures.moved(session, job, source, step.outcome)
    if step.target in TERMINAL:
        endings.settle(session, job)


def _last_step(session: Session, job: Job) -> int | None:
    return session.scalar(select(Attempt.last_step).where(Attempt.job_id == job.id, Attempt.fence == job.fence))


def _is_poison(job: Job, code: str, step: int | None) -> bool:
    # Only the run's own crash at one step twice is the run's doing.
    own_crash = code not in (KILLED, LEASE_EXPIRED, WORKER_LOST, DISK_FULL)
    return own_crash and bool(step) and (job.crash_code, job.crash_step) == (code, step)


def _invalid(job: Job, verb: str, allowed: str) -> Conflict:
    return Conflict("invalid_state", f"A job that is {job.status} cannot be {verb}; only one that is {allowed}.", "id")
