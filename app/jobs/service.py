"""Making jobs and reading them. What moves a job from state to state is in transitions.py, and only there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Select, bindparam, delete, func, insert, select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.ids import new_id
from app.jobs import journal, wakeups
from app.jobs.clock import now
from app.jobs.states import LIVE, Status
from app.jobs.tables import PARTS, AttemptFile, Job, JobInput, Outbox
from ssl_core import tracing
from ssl_core.spec import AnySpec, LabelEfficiencySpec

Role = Literal["dataset", "validation", "test", "pool", "training", "probe", "upload", "model"]


_INPUTS, _DOORBELL = insert(JobInput.__table__), insert(Outbox.__table__)  # type: ignore[arg-type]


@dataclass(frozen=True)
class InputRef:
    """What a job reads, pinned to the digest it has now. `upload`: the id of the dataset, the sha256 of its bytes."""

    role: Role
    id: str
    digest: str


def enqueue(
    session: Session,
    *,
    project_id: str,
    spec: AnySpec,
    inputs: Sequence[InputRef],
    sent: dict[str, Any] | None = None,
    parent: str | None = None,
) -> Job:
    """Write a queued job, its first event and its doorbell in the caller's transaction; it is rung after the commit.

    `spec` is fully resolved; `sent` is the request body, where a user sent one; `parent` is the job that this one is a
    part of. Every input must exist and be pinned. A job that is itself made of jobs waits for no worker.
    """
    at = now(session)
    resolved = spec.model_dump(mode="json")
    body = resolved if sent is None else sent
    queue = PARTS if isinstance(spec, LabelEfficiencySpec) else spec.resources.queue
    job_id = new_id("job")
    with tracing.span(f"{spec.type} create", "producer", job_id=job_id):
        origin = tracing.traceparent()
    job = Job(
        id=job_id, project_id=project_id, type=spec.type, status=Status.QUEUED, queue=queue, parent_id=parent,
        spec=body, resolved_spec=resolved, spec_digest=digest_of(body), meta=dict(getattr(spec, "metadata", {})),
        fence=0, event_seq=1, revision=1, rank=-spec.resources.priority, available_at=at, rung_at=at, infra_losses=0,
        created_at=at, traceparent=origin,
    )  # fmt: skip
    session.add(job)
    session.flush()
    connection = session.connection()
    if inputs:
        rows = [{"job_id": job_id, "role": ref.role, "ref_id": ref.id, "digest": ref.digest} for ref in inputs]
        connection.execute(_INPUTS, rows)
    if queue != PARTS:
        connection.execute(_DOORBELL, {"job_id": job_id, "queue": queue, "due_at": at})
    waits = "its parts" if queue == PARTS else "a worker"
    entry = journal.Entry("state", "queued", f"The job was created and waits for {waits}.", data={"to": Status.QUEUED})
    journal.write(session, job, [entry], job.event_seq, at)
    wakeups.doorbell(session)
    return job


def of_project(project_id: str) -> Select[Job]:
    """The one place where jobs are scoped to their project (R25)."""
    return select(Job).where(Job.project_id == project_id)


_JOB = of_project(bindparam("project_id")).where(Job.id == bindparam("job_id"))  # type: ignore[arg-type]
"""Built once: building a statement costs more than asking it."""


def get(session: Session, project_id: str, job_id: str) -> Job:
    """Raises NotFound."""
    job = session.scalar(_JOB, {"project_id": project_id, "job_id": job_id})
    if job is None:
        raise NotFound("job", job_id)
    return job


def live_job_using(session: Session, ref_id: str) -> str | None:
    """The id of a job that has not ended and reads this dataset or model; None where it may be deleted."""
    query = select(Job.id).join(JobInput, JobInput.job_id == Job.id)
    return session.scalar(query.where(JobInput.ref_id == ref_id, Job.status.in_(LIVE)).limit(1))


def ended_job_using(session: Session, ref_id: str) -> str | None:
    """The project of a job that read this and has ended; None where there is none, or one has not ended."""
    query = select(Job.project_id).join(JobInput, JobInput.job_id == Job.id).where(JobInput.ref_id == ref_id)
    return None if live_job_using(session, ref_id) else session.scalar(query.limit(1))


def any_job_using(session: Session, ref_id: str) -> bool:
    """Whether there is or was a job that reads this."""
    return session.scalar(select(JobInput.job_id).where(JobInput.ref_id == ref_id).limit(1)) is not None


def live_count(session: Session, project_id: str, most: int) -> int:
    """Jobs of the project that have not ended, counted up to `most`; a job made of jobs counts once.

    It reads `ix_jobs_live`: what the project has ended over the years is not looked at.
    """
    mine = (Job.project_id == project_id, Job.status.in_(LIVE), Job.parent_id.is_(None))
    counted = select(Job.id).where(*mine).limit(most).subquery()
    return session.execute(select(func.count()).select_from(counted)).scalar_one()


def digest_of(body: dict[str, Any]) -> str:
    """sha256 of the canonical JSON: two bodies with the same meaning have the same digest."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def disown(session: Session, keys: Sequence[str]) -> None:
    """These objects of the store go: no job's result names them any longer."""
    session.execute(delete(AttemptFile).where(AttemptFile.key.in_(keys)))


def owned(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of these objects of the store that an attempt has put there."""
    return set(session.scalars(select(AttemptFile.key).where(AttemptFile.key.in_(keys))))
