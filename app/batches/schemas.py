"""API shapes of `/v1/batches`: OpenAI's, where it has them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.pagination import Listing
from ssl_core.requests.lines import Endpoint
from ssl_core.spec import DatasetId, Metadata, Resources

_BATCH: dict[str, Any] = {
    "id": "job_01jd3w9aaa", "object": "batch", "endpoint": "/v1/embeddings", "model": "mdl_01jd3w9qz2", "errors": None,
    "input_file_id": "ds_01jd3w8m6k", "completion_window": "24h", "status": "completed",
    "output_file_id": "ds_01jd3w9bbb", "error_file_id": None, "created_at": 1767225600, "in_progress_at": 1767225603,
    "expires_at": 1767312000, "finalizing_at": 1767225660, "completed_at": 1767225661, "failed_at": None,
    "expired_at": None, "cancelling_at": None, "cancelled_at": None,
    "request_counts": {"total": 100, "completed": 100, "failed": 0},
    "usage": {"input_tokens": 900, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 0,
              "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 900},
    "metadata": None,
}  # fmt: skip
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class BatchCreate(BaseModel):
    """OpenAI's fields, and `resources` as jobs have it."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False,
        json_schema_extra={"examples": [
            {"input_file_id": "ds_01jd3w8m6k", "endpoint": "/v1/embeddings", "completion_window": "24h"}
        ]},
    )  # fmt: skip

    input_file_id: DatasetId = Field(description="a file of purpose `batch`: a request a line")
    endpoint: Endpoint = Field(description="of every line's `url`")
    completion_window: Literal["24h"] = Field(description="a batch that has not ended by then is `expired`")
    metadata: Metadata | None = Field(default=None, max_length=16)
    resources: Resources = Resources()


class BatchError(BaseModel):
    """Why the file cannot be used."""

    code: str
    line: int | None = Field(description="of the file, counted from 1")
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """The first 100 of them."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    """Requests of the file; all 0 until it is validated."""

    total: int
    completed: int
    failed: int = Field(description="told in the error file")


class InputTokens(BaseModel):
    """None is ever cached."""

    cached_tokens: Literal[0] = 0


class OutputTokens(BaseModel):
    """None is ever reasoned."""

    reasoning_tokens: Literal[0] = 0


class BatchUsage(BaseModel):
    """Tokens that the model read."""

    input_tokens: int
    input_tokens_details: InputTokens = InputTokens()
    output_tokens: Literal[0] = 0
    output_tokens_details: OutputTokens = OutputTokens()
    total_tokens: int


class BatchObject(BaseModel):
    """A job of type `batch` in OpenAI's words. `GET /v1/jobs/{id}` says more of the same job."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BATCH]})

    id: str = Field(description="the job's id")
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = Field(description="that all requests name; null where the first line names none that there is")
    errors: BatchErrors | None = Field(description="of a failed batch: what is wrong with the file, line by line")
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: Status = Field(description="a batch that waits for a worker is still `validating`")
    output_file_id: str | None = Field(description="a line for each request that was answered, once it is completed")
    error_file_id: str | None = Field(description="a line for each request that could not be answered")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage | None = Field(description="once it is completed")
    metadata: dict[str, str] | None


class BatchList(Listing[BatchObject]):
    """A page of batches."""
