"""Deleting a dataset: never under a job that reads it, and its bytes only once its row is gone for good."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.datasets import service
from app.datasets.tables import Dataset
from app.db import after_commit
from app.errors import Conflict
from app.jobs import limits, transitions
from app.jobs import service as jobs
from app.models import service as models
from app.settings import Settings
from app.storage import Store


def delete(session: Session, settings: Settings, store: Store, file: Dataset) -> list[str]:
    """Delete rows now and bytes after the commit; the dataset's own unfinished ingest is cancelled.

    Returns: ids of the models that are still here and saw it, by themselves or through the model they began with.

    Raises:
        NotFound: it is gone by now.
        Conflict: 409 `in_use`, a job that has not ended reads it.
    """
    job_id, project_id = file.job_id, file.project_id
    # The job before its dataset, in the order in which a finishing ingest locks them.
    own = transitions.lock(session, job_id) if job_id else None
    row = service.lock(session, project_id, file.id)
    user = jobs.live_job_using(session, row.id)
    if user is not None and user != job_id:
        raise Conflict("in_use", f"Job {user} still reads {row.id}; cancel it or wait for its end.", "id")
    if user is not None and own is not None:
        transitions.cancel(session, own, limits.of(settings))
    saw = models.that_saw(session, project_id, row.id)
    keys = service.remove(session, row)
    jobs.disown(session, keys)
    after_commit(session, lambda: [store.delete(key) for key in keys])
    return saw
