"""The shapes of the worker's door (docs/contracts.md §5). Requests are strict and closed, as everywhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from ssl_core.errors import ErrorClass
from ssl_core.events import Event, Number, SeriesName, Step
from ssl_core.values import Value

MAX_LOG_TEXT = 256 * 1024


def _stays_below(path: str) -> str:
    if any(part.startswith(".") for part in path.split("/")):
        raise ValueError("no part of the path may start with a dot")
    return path


FilePath = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", max_length=400),
    AfterValidator(_stays_below),
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fence = Annotated[int, Field(ge=1, lt=2**31)]
Metrics = Annotated[dict[SeriesName, Number], Field(max_length=500)]


class WorkerName(Value):
    """Who claims."""

    name: str = Field(max_length=200)
    host: str = Field(max_length=255)
    pid: int = Field(ge=0)
    boot_id: str = Field(default="", max_length=64)


class ClaimRequest(Value):
    """`job_id: null` = the job of the queue whose turn it is."""

    job_id: str | None = Field(default=None, max_length=40)
    queue: Literal["cpu", "gpu"]
    short: bool = Field(default=False, description="only jobs that train nothing: ingests, imports, exports, reports")
    worker: WorkerName


class FencedRequest(Value):
    """Every write of an attempt carries its fence."""

    fence: Fence


class EventsRequest(FencedRequest):
    """A batch of the engine's events."""

    events: list[Event] = Field(max_length=1000)


class LogRequest(FencedRequest):
    """A piece of raw output; `offset` counts the UTF-8 bytes of all text sent before it."""

    offset: int = Field(ge=0, lt=2**53)
    text: str = Field(max_length=MAX_LOG_TEXT)


class FileEntry(Value):
    """A file of a manifest."""

    path: FilePath
    size: int = Field(ge=0, lt=2**53)
    sha256: Sha256


class FileHeaders(BaseModel):
    """What the headers of a file upload declare; numbers arrive as text."""

    path: FilePath
    fence: Fence
    size: int = Field(ge=0, lt=2**53)
    sha256: Sha256


class CheckpointRequest(FencedRequest):
    """A checkpoint whose files are up, paths relative to its folder."""

    step: Step
    files: list[FileEntry] = Field(min_length=1, max_length=1000)
    metrics: Metrics = Field(default_factory=dict)


class CompleteRequest(FencedRequest):
    """The result whose files are up, paths relative to the artifact folder."""

    files: list[FileEntry] = Field(max_length=10_000)
    metrics: dict[str, Any] = Field(default_factory=dict, max_length=500)
    summary: dict[str, Any] = Field(default_factory=dict)


class ErrorReport(Value):
    """`class` decides whether the job is tried again."""

    error_class: ErrorClass = Field(alias="class")
    code: str = Field(min_length=1, max_length=64)
    message: str = Field(min_length=1, max_length=4000)
    param: str | None = Field(default=None, max_length=400)


class FailRequest(FencedRequest):
    """The run failed."""

    error: ErrorReport


class ReleaseRequest(FencedRequest):
    """The worker lets go without a result."""

    reason: Literal["drain", "cancel", "pause", "lost"]


class TicketFile(BaseModel):
    """A file to fetch; `url` is a path on the API."""

    path: str
    size: int
    sha256: str
    url: str


class TicketInput(BaseModel):
    """A dataset, an upload or a model."""

    id: str
    role: str
    digest: str
    files: list[TicketFile]


class TicketCheckpoint(BaseModel):
    """A checkpoint to resume from, newest first."""

    id: str
    step: int
    files: list[TicketFile]


class Ticket(BaseModel):
    """All that one attempt at a job needs."""

    job_id: str
    attempt: int
    fence: int
    token: str
    lease_seconds: float
    heartbeat_seconds: float
    spec: dict[str, Any]
    inputs: list[TicketInput]
    checkpoints: list[TicketCheckpoint]
    traceparent: str | None = None


class HeartbeatReply(BaseModel):
    """The job's standing command."""

    command: Literal["cancel", "pause"] | None
    lease_seconds: float


class EventsReply(BaseModel):
    """Up to this `seq` nothing is missing."""

    accepted_seq: int


class LogReply(BaseModel):
    """Where the next piece belongs."""

    next_offset: int


class CheckpointReply(BaseModel):
    """The checkpoint's id."""

    id: str


class StatusReply(BaseModel):
    """Where the job stands now."""

    status: str
