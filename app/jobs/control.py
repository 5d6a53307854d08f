"""What a user may do to a job once it exists. Each is durable when the reply leaves, and a no-op when sent again.

What is done to a job that is made of jobs is done to its parts in the same transaction.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.jobs import parts, transitions
from app.jobs.limits import Limits
from app.jobs.states import Status
from app.jobs.tables import Job


def cancel(session: Session, project_id: str, job_id: str, limits: Limits) -> Job:
    """Raises NotFound, or Conflict `invalid_state` once the job has succeeded or failed."""
    job = _locked(session, project_id, job_id)
    transitions.cancel(session, job, limits)
    for part in parts.live(session, job.id):
        transitions.cancel(session, part, limits)
    return job


def pause(session: Session, project_id: str, job_id: str) -> Job:
    """Raises NotFound, or Conflict `invalid_state`."""
    job = _locked(session, project_id, job_id)
    transitions.pause(session, job)
    for part in parts.live(session, job.id):
        if part.status in (Status.QUEUED, Status.RUNNING):
            transitions.pause(session, part)
    return job


def resume(session: Session, project_id: str, job_id: str) -> Job:
    """Raises NotFound, or Conflict `invalid_state`."""
    job = _locked(session, project_id, job_id)
    transitions.resume(session, job)
    for part in parts.live(session, job.id):
        if part.status == Status.PAUSED:
            transitions.resume(session, part)
    return job


def _locked(session: Session, project_id: str, job_id: str) -> Job:
    job = transitions.lock(session, job_id)
    if job is None or job.project_id != project_id:
        raise NotFound("job", job_id)
    return job
