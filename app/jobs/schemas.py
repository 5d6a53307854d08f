"""API shapes of jobs and of what runs tell."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.states import Outcome, Status
from app.jobs.tables import Attempt, AttemptFile, Checkpoint, Job, JobEvent, Sample
from app.pagination import Listing
from ssl_core.events import Number

_JOB_EXAMPLE: dict[str, Any] = {
    "id": "job_01jd3w9aaa", "object": "job", "created_at": 1767225600, "started_at": 1767225602, "finished_at": None,
    "type": "pretrain", "status": "running",
    "progress": {"stage": "training", "step": 320, "total_steps": 2000, "percent": 16.0,
                 "examples_per_second": 210.5, "eta_seconds": 255.0},
    "spec": {"type": "pretrain", "dataset": "ds_01jd3w8m6k", "objective": {"name": "mlm"}},
    "resolved_spec": {"type": "pretrain", "dataset": "ds_01jd3w8m6k", "batch_size": 32, "seed": 0},
    "result": None, "error": None, "metadata": {},
    "attempts": [{"attempt": 1, "worker": "host-1", "started_at": 1767225602, "ended_at": None, "outcome": None,
                  "reason": None}],
}  # fmt: skip


class JobFile(BaseModel):
    """A file of a job's result."""

    path: str
    bytes: int
    sha256: str
    content_url: str


class JobFileList(BaseModel):
    """The files of a job's result."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"object": "list", "data": [{"path": "report.html", "bytes": 20480, "sha256": "ab" * 32,
                                     "content_url": "/v1/jobs/job_01jd3w9aaa/files/report.html"}]}
    ]})  # fmt: skip

    object: Literal["list"] = "list"
    data: list[JobFile]


class Progress(BaseModel):
    """How far a run is."""

    stage: str | None = Field(description="such as preparing, training or evaluating")
    step: int = 0
    total_steps: int | None = None
    percent: float = 0.0
    examples_per_second: float | None = None
    eta_seconds: float | None = None


class JobError(BaseModel):
    """Why it failed, in the words of the user's data and spec."""

    code: str
    message: str
    param: str | None = None


class AttemptObject(BaseModel):
    """One start of the job, and why it ended."""

    attempt: int
    worker: str
    started_at: int
    ended_at: int | None
    outcome: Outcome | None = Field(description="; ".join(f"`{each}`" for each in Outcome))
    reason: str | None


class JobObject(BaseModel):
    """A job. `spec` is as sent; `resolved_spec` holds every number, and sent back it repeats the run."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB_EXAMPLE]})

    id: str
    object: Literal["job"] = "job"
    created_at: int = Field(description="unix seconds")
    started_at: int | None
    finished_at: int | None
    type: str
    status: Status
    progress: Progress | None
    spec: dict[str, Any]
    resolved_spec: dict[str, Any]
    result: dict[str, Any] | None = Field(description="`model` (or `dataset`) and the final `metrics`")
    error: JobError | None
    metadata: dict[str, str]


class JobDetail(JobObject):
    """A job with its attempts."""

    attempts: list[AttemptObject] = Field(description="how often it was started, and why each attempt ended")


class JobList(Listing[JobObject]):
    """A page of jobs."""


class EventObject(BaseModel):
    """A line of the job's diary."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"id": "evt_01jd3w9bbb", "object": "job.event", "created_at": 1767225602, "type": "state", "level": "info",
         "code": "running", "message": "The job is running.", "data": {"from": "queued", "to": "running"}}
    ]})  # fmt: skip

    id: str
    object: Literal["job.event"] = "job.event"
    created_at: int
    type: Literal["state", "message", "checkpoint", "sample"]
    level: Literal["info", "warning", "error"]
    code: str
    message: str
    data: dict[str, Any]


class EventList(Listing[EventObject]):
    """A page of events."""


class CheckpointObject(BaseModel):
    """A checkpoint that the job can resume from."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"id": "ckpt_01jd3w9ccc", "object": "job.checkpoint", "created_at": 1767225660, "step": 320, "attempt": 1,
         "bytes": 41943040, "metrics": {"train/loss": 2.31}}
    ]})  # fmt: skip

    id: str
    object: Literal["job.checkpoint"] = "job.checkpoint"
    created_at: int
    step: int
    attempt: int
    bytes: int
    metrics: dict[str, Any]


class CheckpointList(Listing[CheckpointObject]):
    """A page of checkpoints."""


class SampleObject(BaseModel):
    """A picture or a text that the run made."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"id": "smp_01jd3w9ddd", "object": "job.sample", "created_at": 1767225660, "step": 320, "name": "fills",
         "media_type": "text/plain", "caption": "masked words and what the model puts there",
         "content_url": "/v1/jobs/job_01jd3w9aaa/samples/smp_01jd3w9ddd/content"}
    ]})  # fmt: skip

    id: str
    object: Literal["job.sample"] = "job.sample"
    created_at: int
    step: int
    name: str
    media_type: str
    caption: str
    content_url: str


class SampleList(Listing[SampleObject]):
    """A page of samples."""


class SeriesObject(BaseModel):
    """One series: `values[i]` was measured at `steps[i]`."""

    name: str
    steps: list[int]
    values: list[Number] = Field(description="a value that is not finite is the string `nan`, `inf` or `-inf`")


class MetricsObject(BaseModel):
    """The job's curves."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"object": "job.metrics", "job_id": "job_01jd3w9aaa",
         "series": [{"name": "train/loss", "steps": [10, 20, 30], "values": [9.1, 7.4, "nan"]}]}
    ]})  # fmt: skip

    object: Literal["job.metrics"] = "job.metrics"
    job_id: str
    series: list[SeriesObject]


class LogsObject(BaseModel):
    """A piece of an attempt's raw output."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"object": "job.logs", "job_id": "job_01jd3w9aaa", "attempt": 1, "offset": 0, "next_offset": 22,
         "text": "preparing 1,000 rows\\n"}
    ]})  # fmt: skip

    object: Literal["job.logs"] = "job.logs"
    job_id: str
    attempt: int
    offset: int
    next_offset: int = Field(description="ask for the next piece with this `offset`")
    text: str


class EstimateObject(BaseModel):
    """What a job would need: predictions, good to about a factor of two."""

    object: Literal["job.estimate"] = "job.estimate"
    steps: int | None = Field(description="null where the budget is `minutes`")
    examples_per_epoch: int
    parameters: int = Field(description="of the encoder")
    trained_parameters: int = Field(description="of these that are trained; with mode `lora` those of the adapters")
    memory_bytes: int
    resolved_spec: dict[str, Any]


def as_job(job: Job) -> JobObject:
    """A row as the API shows it."""
    return JobObject.model_validate(_fields(job))


def as_detail(job: Job, attempts: list[Attempt]) -> JobDetail:
    """The same with its attempts, oldest first."""
    return JobDetail.model_validate(_fields(job) | {"attempts": [_attempt(row) for row in attempts]})


def as_event(row: JobEvent) -> EventObject:
    """A row as the API shows it."""
    names = ("id", "type", "level", "code", "message", "data")
    return EventObject(created_at=row.created_at // 1000, **{name: getattr(row, name) for name in names})


def as_checkpoint(row: Checkpoint) -> CheckpointObject:
    """A row as the API shows it."""
    return CheckpointObject(
        id=row.id, created_at=row.created_at // 1000, step=row.step, attempt=row.fence,
        bytes=sum(file["size"] for file in row.files), metrics=row.metrics,
    )  # fmt: skip


def as_file(job_id: str, row: AttemptFile) -> JobFile:
    """A row as the API shows it."""
    path = row.path.partition("/")[2]
    return JobFile(path=path, bytes=row.size, sha256=row.sha256, content_url=f"/v1/jobs/{job_id}/files/{path}")


def as_sample(row: Sample) -> SampleObject:
    """A row as the API shows it."""
    return SampleObject(
        id=row.id, created_at=row.created_at // 1000, step=row.step, name=row.name, media_type=row.media_type,
        caption=row.caption, content_url=f"/v1/jobs/{row.job_id}/samples/{row.id}/content",
    )  # fmt: skip


def _fields(job: Job) -> dict[str, Any]:
    same = ("id", "type", "status", "spec", "resolved_spec", "result", "error")
    done: dict[str, Any] = {"percent": 100.0} if job.status == "succeeded" else {}
    if job.finished_at is not None:  # a run that stopped early has told of time it never took
        done["eta_seconds"] = None
    times = ("created_at", "started_at", "finished_at")
    return {
        **{name: getattr(job, name) for name in same},
        **{name: _seconds(getattr(job, name)) for name in times},
        "progress": None if job.progress is None else {**job.progress, **done},
        "metadata": job.meta,
    }


def _attempt(row: Attempt) -> dict[str, Any]:
    return {
        "attempt": row.fence, "worker": str(row.worker.get("host", "")), "started_at": _seconds(row.started_at),
        "ended_at": _seconds(row.ended_at), "outcome": row.outcome, "reason": row.reason,
    }  # fmt: skip


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000
