"""What users read of jobs: lists, the diary, checkpoints, samples, logs, curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Query
from sqlalchemy import Select, bindparam, exists, func, select
from sqlalchemy.orm import Session, aliased

from app.errors import ApiError, NotFound, Unprocessable
from app.jobs import journal, service
from app.jobs.states import Status
from app.jobs.tables import Attempt, Checkpoint, Job, JobEvent, JobInput, JobPart, LogChunk, Sample

LOG_PIECE = 256 * 1024
_REVISION = select(Job.revision).where(Job.project_id == bindparam("project_id"), Job.id == bindparam("job_id"))
_ATTEMPTS = select(Attempt).where(Attempt.job_id == bindparam("job_id")).order_by(Attempt.fence)
JobType = Literal[
    "pretrain", "finetune", "evaluate", "predict", "embed", "batch", "label_efficiency", "baseline", "report", "ingest",
    "import", "export",
]  # fmt: skip


@dataclass(frozen=True)
class JobFilter:
    """What a list of jobs may be narrowed to."""

    status: Annotated[Status | None, Query(description="only jobs that stand here")] = None
    type: Annotated[JobType | None, Query(description="`ingest` jobs are listed only when asked for")] = None
    part_of: Annotated[
        str | None, Query(max_length=64, description="the parts of this job, which are listed only when asked for")
    ] = None


def jobs(project_id: str, wanted: JobFilter) -> Select[Job]:
    """The project's jobs under these filters; ingest jobs only where asked for by type, parts by their parent."""
    query = service.of_project(project_id)
    if wanted.part_of is None:
        query = query.where(Job.parent_id.is_(None))
    else:
        query = query.where(Job.id.in_(select(JobPart.part_id).where(JobPart.job_id == wanted.part_of)))
    query = query.where(Job.type != "ingest") if wanted.type is None else query.where(Job.type == wanted.type)
    return query if wanted.status is None else query.where(Job.status == wanted.status)


def embeddings(session: Session, project_id: str, dataset_id: str, statuses: Iterable[Status]) -> dict[str, str]:
    """By model, the newest of its `embed` jobs of this dataset that stand there; the model of the newest job first."""
    data, model, newest = aliased(JobInput), aliased(JobInput), func.max(Job.id)
    query = select(model.ref_id, newest).join(data, data.job_id == Job.id).join(model, model.job_id == Job.id)
    asked = (Job.project_id == project_id, Job.type == "embed", Job.status.in_(statuses), data.ref_id == dataset_id)
    query = query.where(*asked, data.role == "dataset", model.role == "model").group_by(model.ref_id)
    return dict(session.execute(query.order_by(newest.desc())).tuples().all())


def with_metadata(session: Session, query: Select[Job], metadata: Mapping[str, str]) -> Select[Job]:
    """Only jobs that carry all of these keys with these values, whatever characters the keys hold."""
    for key, value in metadata.items():
        if session.get_bind().dialect.name == "sqlite":
            # A JSON path cannot quote every key; the pairs as rows can be compared as they are.
            pair = func.json_each(Job.meta).table_valued("key", "value")
            query = query.where(exists().where(pair.c.key == key, pair.c.value == value))
        else:
            query = query.where(Job.meta[key].as_string() == value)
    return query


def metadata_filter(query: Mapping[str, str]) -> dict[str, str]:
    """`metadata[k]=v` of a query string. Raises Unprocessable for a malformed name."""
    found = {}
    for name, value in query.items():
        if not name.startswith("metadata"):
            continue
        key = name.removeprefix("metadata[").removesuffix("]")
        if name != f"metadata[{key}]" or not 1 <= len(key) <= 64:
            raise Unprocessable("unknown_field", f"Write metadata filters as metadata[key]=value, not {name!r}.", name)
        found[key] = value
    return found


def revision(session: Session, project_id: str, job_id: str) -> str:
    """The job's entity tag: weak, changed by every change of the row. Raises NotFound."""
    # Of all questions the most frequent: made once, and asked without the ORM.
    found = session.connection().execute(_REVISION, {"project_id": project_id, "job_id": job_id}).scalar()
    if found is None:
        raise NotFound("job", job_id)
    return tag_of(found)


def tag_of(revision: int) -> str:
    """The entity tag of a job's row that stands at this revision."""
    return f'W/"{revision}"'


def attempts(session: Session, job: Job) -> list[Attempt]:
    """Oldest first. A job that no worker has taken yet has none."""
    return list(session.scalars(_ATTEMPTS, {"job_id": job.id})) if job.fence else []


def events(job_id: str) -> Select[JobEvent]:
    """The diary."""
    return select(JobEvent).where(JobEvent.job_id == job_id)


def checkpoints(job_id: str) -> Select[Checkpoint]:
    """What the job can resume from."""
    return select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.superseded.is_(False))


def samples(job_id: str) -> Select[Sample]:
    """What the run made to be looked at."""
    return select(Sample).where(Sample.job_id == job_id)


def event_position(job_id: str, event_id: str | None) -> int:
    """`seq` of an event id of this job; 0 for None. Raises 400 `invalid_cursor`."""
    if event_id is None:
        return 0
    prefix = journal.event_id(job_id, 0)[:-10]
    digits = event_id.removeprefix(prefix)
    if not event_id.startswith(prefix) or not digits.isascii() or not digits.isdigit() or len(digits) != 10:
        raise ApiError("invalid_cursor", "Last-Event-ID is not the id of an event of this job.", "Last-Event-ID")
    return int(digits)


def log_piece(session: Session, job: Job, attempt: int | None, offset: int) -> tuple[int, int, str]:
    """(attempt, next offset, text) from this byte on; None = the newest attempt. A piece ends where a chunk ends."""
    number = job.fence if attempt is None else attempt
    query = select(LogChunk).where(LogChunk.job_id == job.id, LogChunk.fence == number, LogChunk.offset >= offset)
    text, following = [], offset
    size = 0
    for chunk in session.scalars(query.order_by(LogChunk.offset).limit(64)):
        if size and size + chunk.size > LOG_PIECE:
            break
        text.append(chunk.text)
        size += chunk.size
        following = chunk.offset + chunk.size
    return number, following, "".join(text)
