"""Jobs made of jobs: a parent whose parts are ordinary jobs, and which moves as they do.

No worker holds a parent. Its parts are made with it, in one transaction; `advance` looks at them now and then (from
the background threads of any API process) and writes what follows: it runs once a part runs, fails with the first part
that fails, and succeeds with the result of its last part, which `finish` asks for once all the others are there.
A part that succeeded before, for whatever parent, is used again: a kill, a cancel or one more point never repeats work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs import journal, service, transitions
from app.jobs.clock import now
from app.jobs.limits import Limits
from app.jobs.service import InputRef
from app.jobs.states import HELD, LIVE, TERMINAL, Status
from app.jobs.tables import PARTS, Job, JobPart
from ssl_core.spec import AnySpec

LAST = "report"
"""The name of the part whose result is the parent's."""


@dataclass(frozen=True)
class Part:
    """A part still to be made: what it is called within its parent, its resolved spec and what it reads."""

    name: str
    spec: AnySpec
    inputs: Sequence[InputRef]


def add(session: Session, parent: Job, parts: Sequence[Part]) -> None:
    """Make these parts of a job, each from an equal one that has succeeded, where there is such a one."""
    for part in parts:
        known = _done_before(session, parent.project_id, part)
        if known is None:
            made = service.enqueue(
                session, project_id=parent.project_id, spec=part.spec, inputs=part.inputs, parent=parent.id
            )
            known = made.id
        session.add(JobPart(job_id=parent.id, name=part.name, part_id=known))
    session.flush()


def of(session: Session, job_id: str) -> dict[str, Job]:
    """The parts of a job by name, as they are now."""
    query = select(JobPart.name, Job).join(Job, Job.id == JobPart.part_id).where(JobPart.job_id == job_id)
    rows = session.execute(query.order_by(Job.id).execution_options(populate_existing=True))
    return {row[0]: row[1] for row in rows}


def live(session: Session, job_id: str) -> list[Job]:
    """The parts that this job made and that have not ended, each locked."""
    query = select(Job).where(Job.parent_id == job_id, Job.status.in_(LIVE)).order_by(Job.id)
    return list(session.scalars(query.with_for_update().execution_options(populate_existing=True)))


def standing(session: Session) -> list[str]:
    """Jobs made of jobs that have not ended."""
    query = select(Job.id).where(Job.queue == PARTS, Job.status.in_(LIVE - {Status.PAUSED}))
    return list(session.scalars(query.order_by(Job.id)))


def settle(session: Session, job: Job, parts: dict[str, Job], limits: Limits) -> bool:
    """Move a locked parent as far as its parts allow. True where all are done and the last is still to be made."""
    states = {Status(part.status) for part in parts.values()}
    mine = {Status(part.status) for part in parts.values() if part.parent_id == job.id}
    if job.status in (Status.CANCELLING, Status.PAUSING):
        still = LIVE if job.status == Status.CANCELLING else HELD | {Status.QUEUED}
        if not mine & still:
            transitions.release(session, job)
        return False
    if job.status == Status.QUEUED:
        if not states & (HELD | TERMINAL):
            return False
        transitions.start_parts(session, job)
    _tell(session, job, parts)
    bad = next((each for each in parts.items() if each[1].status in (Status.FAILED, Status.CANCELLED)), None)
    if bad is not None:
        _give_up(session, job, *bad, limits)
    elif states == {Status.SUCCEEDED}:
        if LAST not in parts:
            return True
        transitions.succeed(session, job, dict(parts[LAST].result or {}))
    return False


def _give_up(session: Session, job: Job, name: str, part: Job, limits: Limits) -> None:
    """One part has failed: the others would be for nothing, and those that are done are kept for another time."""
    for each in live(session, job.id):
        transitions.cancel(session, each, limits)
    error = part.error or {}
    message = f"Its part {name} ({part.id}) did not succeed: {error.get('message', 'it was cancelled.')}"
    told = {"class": "user", "code": "part_failed", "message": message, "param": None}
    if error.get("code") == "leakage":  # the job's own fault: its fields are the part's
        told = {**told, "class": "data", "code": "leakage", "param": error.get("param")}
    transitions.fail(session, job, told)


def _tell(session: Session, job: Job, parts: dict[str, Job]) -> None:
    """Progress: parts done, counting a running one by its own share."""
    done = sum(part.status == Status.SUCCEEDED for part in parts.values())
    share = sum(_share(part) for part in parts.values()) / max(1, len(parts) + (LAST not in parts))
    progress = {
        "stage": "reporting" if LAST in parts else "training", "step": done, "total_steps": len(parts),
        "percent": round(100 * share, 1),
    }  # fmt: skip
    if job.progress != progress:
        job.progress = progress
        journal.record(session, job, [], now(session))


def _share(part: Job) -> float:
    if part.status == Status.SUCCEEDED:
        return 1.0
    return min(1.0, float((part.progress or {}).get("percent") or 0) / 100) if part.status in HELD else 0.0


def _done_before(session: Session, project_id: str, part: Part) -> str | None:
    """An equal part that has succeeded; its inputs are the same because ids are of datasets that never change."""
    digest = service.digest_of(part.spec.model_dump(mode="json"))
    same = (Job.spec_digest == digest, Job.parent_id.is_not(None), Job.status == Status.SUCCEEDED)
    return session.scalar(service.of_project(project_id).with_only_columns(Job.id).where(*same).limit(1))
