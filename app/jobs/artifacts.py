"""Files of attempts: uploads, checkpoints, results. Nothing committed names bytes the store has not confirmed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db import after_commit
from app.errors import NotFound, Unprocessable
from app.ids import new_id
from app.jobs import attempts, endings, journal, parts, transitions
from app.jobs.clock import now
from app.jobs.states import Status
from app.jobs.tables import PARTS, Attempt, AttemptFile, Checkpoint, Job, Sample
from app.models.service import StoredFile
from app.storage import Store

ARTIFACT = "artifact/"
KEEP_CHECKPOINTS = 3
"""R15 asks for at least two: the newest may turn out to be damaged."""


class FileClaim(NamedTuple):
    """A file as the worker names it: relative path, bytes, sha256."""

    path: str
    size: int
    sha256: str


def new_key(attempt: Attempt, file: FileClaim) -> str:
    """Where an upload goes: under the attempt, in a place of its own: no write ever replaces another's bytes."""
    return f"jobs/{attempt.job_id}/{attempt.fence}/{secrets.token_hex(8)}/{file.path}"


def known_file(session: Session, attempt: Attempt, fence: int, file: FileClaim) -> bool:
    """Whether exactly these bytes are already up under this path. Raises LeaseLost."""
    attempts.hold(session, attempt, fence)
    row = session.get(AttemptFile, (attempt.job_id, attempt.fence, file.path))
    return row is not None and (row.size, row.sha256) == (file.size, file.sha256)


def record_file(session: Session, attempt: Attempt, fence: int, file: FileClaim, key: str) -> None:
    """Remember a finished upload. Raises LeaseLost where the job went to another attempt meanwhile."""
    attempts.hold(session, attempt, fence)
    row = session.get(AttemptFile, (attempt.job_id, attempt.fence, file.path))
    row = row or AttemptFile(job_id=attempt.job_id, fence=attempt.fence, path=file.path)
    row.size, row.sha256, row.key, row.created_at = file.size, file.sha256, key, now(session)
    session.add(row)
    session.flush()


def commit_checkpoint(session: Session, attempt: Attempt, fence: int, checkpoint: dict[str, Any], store: Store) -> str:
    """A row for `{"step", "files", "metrics"}`; the same step of the same attempt again is the same row.

    Raises:
        LeaseLost: another attempt owns the job.
        Unprocessable: a file is not up with that size and digest.
    """
    job, step = attempts.hold(session, attempt, fence), checkpoint["step"]
    mine = (Checkpoint.job_id == job.id, Checkpoint.fence == job.fence, Checkpoint.step == step)
    known = session.scalar(select(Checkpoint.id).where(*mine))
    if known is not None:
        return known
    files = _stored(session, attempt, checkpoint["files"], f"checkpoints/step-{step:09d}/")
    row = Checkpoint(
        id=new_id("ckpt"), job_id=job.id, fence=job.fence, step=step, files=[dict(file) for file in files],
        metrics=checkpoint["metrics"], superseded=False, created_at=now(session),
    )  # fmt: skip
    session.add(row)
    session.flush()
    entry = journal.Entry("checkpoint", "checkpoint", f"Checkpoint at step {step}.", data={"step": step, "id": row.id})
    journal.record(session, job, [entry], row.created_at)
    _prune(session, job, store)
    return row.id


def complete(session: Session, attempt: Attempt, fence: int, outcome: dict[str, Any]) -> str:
    """Commit `{"files", "metrics", "summary"}` as the job's result. Returns the job's status.

    Raises:
        LeaseLost: another attempt owns the job.
        Unprocessable: a file is not up with that size and digest.
    """

    def end(job: Job) -> None:
        if job.status == Status.CANCELLING:
            transitions.succeed(session, job, {})
            return
        files = _stored(session, attempt, outcome["files"], ARTIFACT)
        result = endings.deliver(session, job, files, outcome["metrics"], outcome["summary"])
        transitions.succeed(session, job, result)

    return attempts.once(session, attempt, fence, "complete", end)


def usable_checkpoints(session: Session, job_id: str) -> list[Checkpoint]:
    """Newest first; what an engine may resume from."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.superseded.is_(False))
    return list(session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc())))


def checkpoint_file(session: Session, job_id: str, checkpoint_id: str, path: str) -> StoredFile:
    """One file of a checkpoint of this job. Raises NotFound."""
    row = session.get(Checkpoint, checkpoint_id)
    if row is None or row.job_id != job_id:
        raise NotFound("checkpoint", checkpoint_id)
    for file in row.files:
        if file["path"] == path:
            return StoredFile(path=file["path"], size=file["size"], sha256=file["sha256"], key=file["key"])
    raise NotFound("checkpoint file", path, "path")


def sample_file(session: Session, job_id: str, sample_id: str) -> tuple[Sample, AttemptFile]:
    """A sample and the file that holds it. Raises NotFound, also while the file is still on its way."""
    sample = session.get(Sample, sample_id)
    if sample is None or sample.job_id != job_id:
        raise NotFound("sample", sample_id)
    file = session.get(AttemptFile, (job_id, sample.fence, sample.path))
    if file is None:
        raise NotFound("sample file", sample.path)
    return sample, file


def result_files(session: Session, job: Job) -> list[AttemptFile]:
    """The files that a job's success committed; a job made of jobs has those of its last part."""
    if job.queue == PARTS:
        last = parts.of(session, job.id).get(parts.LAST)
        return [] if last is None else result_files(session, last)
    if job.status != Status.SUCCEEDED:
        return []
    mine = (AttemptFile.job_id == job.id, AttemptFile.fence == job.fence)
    query = select(AttemptFile).where(*mine, AttemptFile.path.startswith(ARTIFACT, autoescape=True))
    return list(session.scalars(query.order_by(AttemptFile.path)))


def result_file(session: Session, job: Job, path: str) -> AttemptFile:
    """One of them, by its path in the result. Raises NotFound."""
    for file in result_files(session, job):
        if file.path == ARTIFACT + path:
            return file
    raise NotFound("job file", path, "path")


def embedding_file(session: Session, job_id: str, path: str) -> AttemptFile:
    """A file that an `embed` job left, for the inference role, which is told of the job alone. Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None or job.type != "embed":
        raise NotFound("embed job", job_id)
    return result_file(session, job, path)


def _stored(session: Session, attempt: Attempt, files: Sequence[FileClaim], prefix: str) -> list[StoredFile]:
    """The upload records of these files of the folder `prefix`."""
    mine = (AttemptFile.job_id == attempt.job_id, AttemptFile.fence == attempt.fence)
    rows = session.scalars(select(AttemptFile).where(*mine, AttemptFile.path.startswith(prefix, autoescape=True)))
    up = {row.path: row for row in rows}
    found = []
    for index, file in enumerate(files):
        row = up.get(prefix + file.path)
        if row is None or (row.size, row.sha256) != (file.size, file.sha256):
            what = f"{prefix + file.path!r} ({file.size} bytes, sha256 {file.sha256[:12]}…)"
            raise Unprocessable("file_missing", f"{what} has not been uploaded by this attempt.", f"files.{index}")
        found.append(StoredFile(path=file.path, size=file.size, sha256=file.sha256, key=row.key))
    return found


def _prune(session: Session, job: Job, store: Store) -> None:
    """Keep the newest usable checkpoints; the others' rows go now, their bytes once that is committed."""
    kept = {row.id for row in usable_checkpoints(session, job.id)[:KEEP_CHECKPOINTS]}
    old = session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.id.not_in(kept))).all()
    keys = [file["key"] for row in old for file in row.files]
    if not keys:
        return
    session.execute(delete(AttemptFile).where(AttemptFile.job_id == job.id, AttemptFile.key.in_(keys)))
    session.execute(delete(Checkpoint).where(Checkpoint.id.in_([row.id for row in old])))
    session.expire_all()

    def sweep() -> None:
        for key in keys:
            store.delete(key)

    after_commit(session, sweep)
