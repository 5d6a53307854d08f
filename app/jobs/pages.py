"""Pages of jobs, their diary and their checkpoints, for domains that show them in other words (`app/fine_tuning`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.jobs import points, reading, service
from app.jobs.schemas import JobObject, as_checkpoint, as_event, as_job
from app.jobs.tables import Checkpoint, Job, JobEvent
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


def events(session: Session, job_id: str, page: Page) -> dict[str, Any]:
    """A page of `EventObject`."""
    return paginate(session, reading.events(job_id), JobEvent, page, as_event)


def checkpoints(session: Session, job_id: str, page: Page) -> dict[str, Any]:
    """A page of `CheckpointObject`."""
    return paginate(session, reading.checkpoints(job_id), Checkpoint, page, as_checkpoint)


def curves(session: Session, job_id: str) -> bytes:
    """All series of the job as `series,step,value`, each thinned to 2,000 points."""
    return points.as_csv(points.read(session, job_id, None, _CURVE_POINTS)).encode()
