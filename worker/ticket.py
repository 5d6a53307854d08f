"""What a claim returns: all that one attempt at a job needs (docs/contracts.md §5)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def _stays_below(path: str) -> str:
    if any(part in (".", "..") for part in path.split("/")):
        raise ValueError(f"the path {path!r} leaves its folder")
    return path


FilePath = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", max_length=400),
    AfterValidator(_stays_below),
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Role = Literal["dataset", "validation", "test", "pool", "training", "probe", "upload", "model"]


class Reply(BaseModel):
    """An answer of the API. Unknown fields are passed over: an older worker reads a newer API (R21)."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RemoteFile(Reply):
    """A file on the API; `url` is a path there, fetched with the attempt's token."""

    path: FilePath
    size: int = Field(ge=0)
    sha256: Sha256
    url: str = Field(pattern=r"^/[^/]")


class Input(Reply):
    """A dataset, an uploaded file or a base model."""

    id: str = Field(pattern=r"^[A-Za-z0-9_]{1,64}$")
    role: Role
    files: list[RemoteFile]


class RemoteCheckpoint(Reply):
    """A checkpoint that an earlier attempt committed."""

    id: str
    step: int = Field(ge=0)
    files: list[RemoteFile]


class Ticket(Reply):
    """One attempt: what to run, with what, under which fence."""

    job_id: str = Field(pattern=r"^[A-Za-z0-9_]{1,64}$")
    attempt: str | int
    fence: int = Field(ge=1)
    token: str = Field(repr=False)
    lease_seconds: float = Field(gt=0)
    heartbeat_seconds: float = Field(gt=0)
    spec: dict[str, Any]
    inputs: list[Input] = Field(default_factory=list)
    checkpoints: list[RemoteCheckpoint] = Field(default_factory=list)
    traceparent: str | None = Field(default=None, description="the span that made the job")

    @property
    def name(self) -> str:
        """A file name that is this attempt's alone."""
        return f"{self.job_id}-{self.fence}"
