"""Rows of the job machine. Times are unix milliseconds of the database's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

PARTS = "parts"
"""The queue of jobs that are made of jobs: no worker listens to it, `app.jobs.parts` moves them."""

# SQLite counts up only a plain INTEGER key by itself.
_Serial = BigInteger().with_variant(Integer, "sqlite")


class Job(Base):
    """The job itself: this row is the truth, everything in brokers and workers is a copy of it (R1)."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_claim", "status", "queue", "project_id", "rank", "available_at", "id"),
        Index("ix_jobs_turn", "project_id", "queue", "started_at"),
        Index("ix_jobs_wait", "status", "available_at"),
        Index("ix_jobs_rung", "status", "queue", "rung_at", "id"),
        Index("ix_jobs_lease", "status", "lease_expires"),
        Index("ix_jobs_list", "project_id", "id"),
        Index("ix_jobs_live", "project_id", "status", "id"),
        Index("ix_jobs_digest", "project_id", "spec_digest"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40))
    type: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    resolved_spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    spec_digest: Mapped[str] = mapped_column(String(64))
    meta: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    parent_id: Mapped[str | None] = mapped_column(String(40), index=True)
    """The job that made this one as a part of itself; parts are neither listed nor counted on their own."""

    traceparent: Mapped[str | None] = mapped_column(String(55))
    """The span that made the job, which its attempts go on from; none where nothing is traced."""

    fence: Mapped[int] = mapped_column(default=0)
    lease_expires: Mapped[int | None] = mapped_column(BigInteger)
    grace_expires: Mapped[int | None] = mapped_column(BigInteger)
    rank: Mapped[int] = mapped_column(default=0, server_default="0")
    """The priority, negated: within a project the lower rank goes first, and a plain index finds it on any database."""
    available_at: Mapped[int] = mapped_column(BigInteger, default=0)
    rung_at: Mapped[int] = mapped_column(BigInteger, default=0)
    infra_losses: Mapped[int] = mapped_column(default=0)
    crash_code: Mapped[str | None] = mapped_column(String(64))
    crash_step: Mapped[int | None] = mapped_column(BigInteger)

    revision: Mapped[int] = mapped_column(BigInteger, default=1)
    event_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    points: Mapped[int] = mapped_column(BigInteger, default=0)
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)


class JobInput(Base):
    """What a job reads: a dataset, an upload or a model, pinned to the digest it had at submission."""

    __tablename__ = "job_inputs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    ref_id: Mapped[str] = mapped_column(String(48), index=True)
    digest: Mapped[str] = mapped_column(String(64))


class JobPart(Base):
    """A part of a job that is made of jobs. One that was made before, for another parent, may be used here again."""

    __tablename__ = "job_parts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    part_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)


class Attempt(Base):
    """One start of a job. `fence` counts 1, 2, 3 … and every write of the attempt carries it (R6)."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    worker: Mapped[dict[str, Any]] = mapped_column(JSON)
    started_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    verdict: Mapped[str | None] = mapped_column(String(16))
    """The verb with which the attempt ended itself; the same verb again gets `answer` again (R8)."""
    answer: Mapped[str | None] = mapped_column(String(16))
    accepted: Mapped[list[list[int]]] = mapped_column(JSON, default=list)
    """Inclusive ranges of event sequence numbers already taken, in order."""
    progress_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    log_offset: Mapped[int] = mapped_column(BigInteger, default=0)
    resume_step: Mapped[int | None] = mapped_column(BigInteger)
    last_step: Mapped[int | None] = mapped_column(BigInteger)


class JobEvent(Base):
    """The job's diary, append-only: state changes, messages, checkpoints, samples. `seq` has no gaps within a job."""

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "seq"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int] = mapped_column(BigInteger)
    fence: Mapped[int]
    type: Mapped[str] = mapped_column(String(16))
    level: Mapped[str] = mapped_column(String(8))
    code: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Series(Base):
    """The names of a job's metric series, so that listing and limiting them reads no points."""

    __tablename__ = "metric_series"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)


class Point(Base):
    """One value of one series at one step; a newer fence replaces an older one's (R8)."""

    __tablename__ = "metric_points"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    series: Mapped[str] = mapped_column(String(100), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    value: Mapped[float | None] = mapped_column(Float(53))
    special: Mapped[str | None] = mapped_column(String(4))
    fence: Mapped[int]


class AttemptFile(Base):
    """A file an attempt has put into the store; nothing may be committed that names a file without this row (R14)."""

    __tablename__ = "attempt_files"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(String(400), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(700))
    created_at: Mapped[int] = mapped_column(BigInteger)


class Checkpoint(Base):
    """A committed checkpoint; `files` names rows of `attempt_files`."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "fence", "step"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    fence: Mapped[int]
    step: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    superseded: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[int] = mapped_column(BigInteger)


class Sample(Base):
    """A picture or a text that a run made to be looked at."""

    __tablename__ = "job_samples"
    __table_args__ = (UniqueConstraint("job_id", "step", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    fence: Mapped[int]
    step: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(200))
    path: Mapped[str] = mapped_column(String(400))
    media_type: Mapped[str] = mapped_column(String(64))
    caption: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger)


class LogChunk(Base):
    """A piece of an attempt's raw output; `offset` counts UTF-8 bytes from the attempt's start."""

    __tablename__ = "log_chunks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    size: Mapped[int]
    """Bytes as the worker counts them; what is kept may differ, since NUL cannot be."""
    text: Mapped[str] = mapped_column(Text)


class Outbox(Base):
    """A doorbell still to be rung; written with the state change it announces, deleted once published (R2)."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    queue: Mapped[str] = mapped_column(String(16))
    due_at: Mapped[int] = mapped_column(BigInteger, index=True)
