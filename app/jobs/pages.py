"""Pages of jobs, their diary and their checkpoints, for domains that show them in other words.

`app/fine_tuning` and `app/batches` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.jobs import points, reading, service
from app.jobs.schemas import EventObject, JobObject, as_checkpoint, as_event, as_job
from app.jobs.tables import Checkpoint, Job, JobEvent, Point
from app.pagination import Page, paginate

TRAINED = ("finetune", "pretrain")
_CURVE_POINTS = 2000


def trained(session: Session, project_id: str, metadata: Mapping[str, str], page: Page) -> dict[str, Any]:
    """A page of `JobObject`: those of the project's jobs that train a model, no parts of others."""
    query = reading.jobs(project_id, reading.JobFilter()).where(Job.type.in_(TRAINED))
    return paginate(session, reading.with_metadata(session, query, metadata), Job, page, as_job)


def one_trained(session: Session, project_id: str, job_id: str) -> JobObject:
    """Raises NotFound, for a job that trains no model too."""
    job = service.get(session, project_id, job_id)
    if job.type not in TRAINED:
        raise NotFound("job", job_id)
    return as_job(job)


def batches(session: Session, project_id: str, page: Page) -> dict[str, Any]:
    """A page of `JobObject`: the project's batches."""
    return paginate(session, reading.jobs(project_id, reading.JobFilter(type="batch")), Job, page, as_job)


def one_batch(session: Session, project_id: str, job_id: str) -> JobObject:
    """Raises NotFound, for a job that is no batch too."""
    job = session.scalar(service.of_project(project_id).where(Job.id == job_id, Job.type == "batch"))
    if job is None:
        raise NotFound("batch", job_id)
    return as_job(job)


def batch_notes(session: Session, job_ids: Sequence[str]) -> dict[str, list[EventObject]]:
    """By job, of its last attempt and in order: the stages it came to, its errors, and the cancel."""
    wanted = or_(JobEvent.code.in_(("stage", "cancelling")), JobEvent.level == "error")
    mine = (JobEvent.job_id.in_(job_ids), JobEvent.fence == Job.fence, wanted)
    query = select(JobEvent).join(Job, Job.id == JobEvent.job_id).where(*mine).order_by(JobEvent.job_id, JobEvent.seq)
    found: dict[str, list[EventObject]] = {}
    for row in session.scalars(query) if job_ids else ():
        found.setdefault(row.job_id, []).append(as_event(row))
    return found


def highest(session: Session, job_ids: Sequence[str], series: str) -> dict[str, float]:
    """By job, the highest value of a series; jobs without it are left out."""
    query = select(Point.job_id, func.max(Point.value)).where(Point.job_id.in_(job_ids), Point.series == series)
    rows = session.execute(query.group_by(Point.job_id)).all() if job_ids else ()
    return {job_id: value for job_id, value in rows if value is not None}


def events(session: Session, job_id: str, page: Page) -> dict[str, Any]:
    """A page of `EventObject`."""
    return paginate(session, reading.events(job_id), JobEvent, page, as_event)


def checkpoints(session: Session, job_id: str, page: Page) -> dict[str, Any]:
    """A page of `CheckpointObject`."""
    return paginate(session, reading.checkpoints(job_id), Checkpoint, page, as_checkpoint)


def curves(session: Session, job_id: str) -> bytes:
    """All series of the job as `series,step,value`, each thinned to 2,000 points."""
    return points.as_csv(points.read(session, job_id, None, _CURVE_POINTS)).encode()
