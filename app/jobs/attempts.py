"""One start of a job as its worker sees it: claim, token, inputs, heartbeat, and the three ways to let go."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, bindparam, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app.datasets import service as datasets
from app.db import millisecond
from app.errors import NotFound
from app.jobs import clock, endings, transitions
from app.jobs.clock import now
from app.jobs.limits import Limits
from app.jobs.states import HELD, Status
from app.jobs.tables import Attempt, Job, JobInput
from app.jobs.transitions import LeaseLost
from app.jobs.turns import Wanted
from app.models import service as models
from app.models.service import StoredFile

__all__ = [
    "Attempt",
    "BoundInput",
    "Claimed",
    "claim",
    "fail",
    "heartbeat",
    "hold",
    "identify",
    "input_files",
    "once",
    "release",
]

TOKEN_PREFIX = "gwa_"
_COMMANDS = {Status.CANCELLING: "cancel", Status.PAUSING: "pause"}


@dataclass(frozen=True)
class BoundInput:
    """An input with the files that its digest stands for."""

    id: str
    role: str
    digest: str
    files: list[StoredFile]


@dataclass(frozen=True)
class Claimed:
    """A job in the hands of a new attempt; the token is shown this once and kept as a hash."""

    job: Job
    token: str
    inputs: list[BoundInput]


def claim(session: Session, wanted: Wanted, worker: dict[str, Any], limits: Limits) -> Claimed | None:
    """Take a queued job: fence up by one, lease by the database's clock, a fresh token. None: nothing to take."""
    while (job := transitions.claim(session, wanted, limits)) is not None:
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        begun = now(session) if job.lease_expires is None else job.lease_expires - limits.lease_ms
        session.add(
            Attempt(
                job_id=job.id, fence=job.fence, token_hash=hash_token(token), worker=worker,
                started_at=begun, accepted=[], progress_seq=0, log_offset=0,
            )
        )  # fmt: skip
        session.flush()
        try:
            inputs = [_bind(session, ref) for ref in _inputs(session, job.id)]
        except NotFound as gone:
            error = {"class": "user", "code": "input_gone", "message": gone.message, "param": gone.param}
            transitions.fail(session, job, error)
            continue
        endings.begin(session, job)
        return Claimed(job, token, inputs)
    return None


def identify(session: Session, token: str, job_id: str) -> Attempt:
    """The attempt that this token was made for. Raises NotFound for another job's, an unknown or a foreign token."""
    return _by_hash(session, hash_token(token), job_id)


def _by_hash(session: Session, token_hash: str, job_id: str) -> Attempt:
    attempt = session.scalar(select(Attempt).where(Attempt.token_hash == token_hash))
    if attempt is None or attempt.job_id != job_id:
        raise NotFound("job", job_id)
    return attempt


def hold(session: Session, attempt: Attempt, fence: int) -> Job:
    """The job's locked row, if this attempt still owns it. Raises LeaseLost (409): every write passes here (R6)."""
    # The attempt is read again under the job's lock: two callbacks of it may have raced.
    both = select(Job, Attempt).join(Attempt, Attempt.job_id == Job.id)
    mine = both.where(Job.id == attempt.job_id, Attempt.fence == attempt.fence).with_for_update()
    found = session.execute(mine, execution_options={"populate_existing": True}).one_or_none()
    if found is None or fence != attempt.fence or not transitions.holds(found[0], fence):
        raise LeaseLost
    return found[0]


def heartbeat(session: Session, job_id: str, token_hash: str, fence: int, limits: Limits) -> str | None:
    """Push the lease out, an expired one that nobody took included (R5); the job's standing command.

    One statement while all is well. Raises NotFound as `identify`, LeaseLost where another attempt owns the job.
    """
    given = session.info.get(clock.CLOCK)
    beat = _beat(None if given is not None else session.get_bind().dialect.name)
    told = {"of_job": job_id, "of_token": token_hash, "of_fence": fence, "lease": limits.lease_ms}
    bound = told | ({} if given is None else {"at": given()})
    status = session.connection().execute(beat, bound).scalar_one_or_none()
    if status is None:
        _by_hash(session, token_hash, job_id)
        raise LeaseLost
    return _COMMANDS.get(Status(status))


@cache
def _beat(dialect: str | None) -> ReturningUpdate[Any]:
    """The statement of `heartbeat`, built once. Without a dialect the time is given."""
    at = bindparam("at", type_=BigInteger) if dialect is None else millisecond(dialect)
    mine = select(Attempt.fence).where(
        Attempt.job_id == bindparam("of_job"), Attempt.token_hash == bindparam("of_token")
    )
    held = (Job.fence == mine.scalar_subquery(), Job.fence == bindparam("of_fence"), Job.status.in_(HELD))
    beaten = update(Job).where(Job.id == bindparam("of_job"), *held)
    return beaten.values(lease_expires=at + bindparam("lease", type_=BigInteger)).returning(Job.status)


def fail(session: Session, attempt: Attempt, fence: int, error: dict[str, Any], limits: Limits) -> str:
    """The attempt's own report. `infra` goes back into the queue within the budget, the rest ends the job."""

    def end(job: Job) -> None:
        if error["class"] == "infra":
            transitions.lose(session, job, error, limits)
        else:
            transitions.fail(session, job, error)

    return once(session, attempt, fence, "fail", end)


def release(session: Session, attempt: Attempt, fence: int, reason: str, limits: Limits) -> str:
    """Give the job back. `lost`: the supervisor found its own old attempt dead, which spends infra budget."""

    def end(job: Job) -> None:
        if reason == "lost":
            message = "Its worker was restarted and found the run dead."
            error = {"class": "infra", "code": transitions.WORKER_LOST, "message": message, "param": None}
            transitions.lose(session, job, error, limits)
        else:
            transitions.release(session, job)

    return once(session, attempt, fence, "release", end)


def once(session: Session, attempt: Attempt, fence: int, verb: str, end: Callable[[Job], None]) -> str:
    """Let `end` move the job, and remember the answer: the same verb of the same attempt again gets it again (R8)."""
    transitions.lock(session, attempt.job_id)
    session.refresh(attempt)
    if attempt.verdict == verb and fence == attempt.fence and attempt.answer is not None:
        return attempt.answer
    job = hold(session, attempt, fence)
    end(job)
    attempt.verdict, attempt.answer = verb, job.status
    session.flush()
    return job.status


def input_files(session: Session, job_id: str, ref_id: str) -> list[StoredFile]:
    """The files of one input, for the attempt that fetches them. Raises NotFound."""
    found = [ref for ref in _inputs(session, job_id) if ref.ref_id == ref_id]
    if not found:
        raise NotFound("input", ref_id)
    return [file for ref in found for file in _bind(session, ref).files]


def hash_token(token: str) -> str:
    """256 random bits need no salt and no stretching."""
    return hashlib.sha256(token.encode()).hexdigest()


def _inputs(session: Session, job_id: str) -> list[JobInput]:
    return list(session.scalars(select(JobInput).where(JobInput.job_id == job_id).order_by(JobInput.role)))


def _bind(session: Session, ref: JobInput) -> BoundInput:
    """Raises NotFound where it was deleted or is no longer what it was at submission."""
    if ref.role == "model":
        digest, files = models.digest_and_files(session, ref.ref_id)
    elif ref.ref_id.startswith(models.IMPORT_PREFIX):
        size = session.get_one(Job, ref.job_id).resolved_spec["bytes"]
        digest, files = ref.digest, [models.import_file(ref.ref_id, size, ref.digest)]
    else:
        digest, files = _dataset(session, ref)
    if digest != ref.digest:
        raise NotFound(ref.role, ref.ref_id, ref.role)
    return BoundInput(ref.ref_id, ref.role, ref.digest, files)


def _dataset(session: Session, ref: JobInput) -> tuple[str, list[StoredFile]]:
    find = datasets.upload_file if ref.role == "upload" else datasets.digest_and_files
    digest, files = find(session, ref.ref_id)
    return digest, [StoredFile(**file) for file in files]
