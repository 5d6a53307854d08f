"""What a user may do to a job once it exists. Each is durable when the reply leaves, and a no-op when sent again."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.jobs import transitions
from app.jobs.limits import Limits
from app.jobs.tables import Job


def cancel(session: Session, project_id: str, job_id: str, limits: Limits) -> Job:
    """Raises NotFound, or Conflict `invalid_state` once the job has succeeded or failed."""
    job = _locked(session, project_id, job_id)
    transitions.cancel(session, job, limits)
    return job


def pause(session: Session, project_id: str, job_id: str) -> Job:
    """Raises NotFound, or Conflict `invalid_state`."""
    job = _locked(session, project_id, job_id)
    transitions.pause(session, job)
    return job


def resume(session: Session, project_id: str, job_id: str) -> Job:
    """Raises NotFound, or Conflict `invalid_state`."""
    job = _locked(session, project_id, job_id)
    transitions.resume(session, job)
    return job


def _locked(session: Session, project_id: str, job_id: str) -> Job:
    job = transitions.lock(session, job_id)
    if job is None or job.project_id != project_id:
        raise NotFound("job", job_id)
    return job
