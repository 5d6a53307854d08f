"""`result_files` of a job: its curves as a file that the files door serves, made of the points when it is read."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.errors import NotFound
from app.jobs import pages

_PREFIX = "res_"
FILENAME = "metrics.csv"


@dataclass(frozen=True)
class Result:
    """The file: `series,step,value`, each series thinned to 2,000 points."""

    id: str
    created_at: int
    content: bytes


def result_id(job_id: str) -> str:
    """The id of the job's result file."""
    return f"{_PREFIX}{job_id.removeprefix('job_')}"


def is_result(file_id: str) -> bool:
    """Whether a file of this id would be a job's result."""
    return file_id.startswith(_PREFIX)


def read(session: Session, project_id: str, file_id: str) -> Result:
    """Raises NotFound, also while the job has not succeeded."""
    job_id = f"job_{file_id.removeprefix(_PREFIX)}"
    try:
        job = pages.one_trained(session, project_id, job_id)
    except NotFound:
        raise NotFound("file", file_id) from None
    if job.status != "succeeded" or job.finished_at is None:
        raise NotFound("file", file_id)
    return Result(file_id, job.finished_at, pages.curves(session, job_id))
