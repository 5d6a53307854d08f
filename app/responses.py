"""The one error envelope as OpenAPI knows it, and the errors every route can answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorBody(BaseModel):
    """What went wrong, and where."""

    message: str = Field(description="what was wrong and what is allowed, for people")
    type: str = Field(description="the family of the error, as in the OpenAI API")
    param: str | None = Field(description="the field, header or query parameter at fault, as a dotted path")
    code: str | None = Field(description="stable, for programs")


class ErrorReply(BaseModel):
    """The body of every reply that is not a success."""

    error: ErrorBody


def _error(description: str, code: str, message: str, type: str, param: str | None = None) -> dict[str, Any]:
    example = {"error": {"message": message, "type": type, "param": param, "code": code}}
    return {
        "model": ErrorReply,
        "description": description,
        "content": {"application/json": {"example": example}},
    }


_REQUEST = "invalid_request_error"
ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error(
        "The request cannot be read: `body_required`, `malformed_json`, `invalid_cursor`, `invalid_idempotency_key`, "
        "`invalid_host`.",
        "malformed_json",
        "The body is not valid JSON: Expecting value at line 1, column 9.",
        _REQUEST,
    ),
    401: _error(
        "The key is missing, malformed, unknown, expired or revoked: `invalid_api_key`.",
        "invalid_api_key",
        "The API key is missing or not valid.",
        "authentication_error",
    ),
    403: _error(
        "The key lacks a scope, or a standing quota is used up: `insufficient_scope`, `quota_exceeded`.",
        "insufficient_scope",
        "This needs a key with the scope `write`.",
        "permission_error",
    ),
    404: _error(
        "No such path, or no such thing in this project: `not_found`.",
        "not_found",
        "No job with id 'job_01k…'.",
        _REQUEST,
        "id",
    ),
    405: _error(
        "The path is known, the method is not: `method_not_allowed`; `Allow` lists those that are.",
        "method_not_allowed",
        "PUT is not allowed here; use GET.",
        _REQUEST,
    ),
    406: _error(
        "The Accept header rules out what this route answers: `not_acceptable`.",
        "not_acceptable",
        "This answers application/json; the Accept header allows none of it.",
        _REQUEST,
        "Accept",
    ),
    408: _error(
        "The request came too slowly: `request_timeout`.",
        "request_timeout",
        "The body had not arrived after 60 seconds.",
        _REQUEST,
    ),
    409: _error(
        "The state does not allow it: `invalid_state`, `in_use`, `not_ready`, `idempotency_in_flight`.",
        "invalid_state",
        "The job is succeeded and cannot be cancelled.",
        "conflict_error",
    ),
    413: _error(
        "The body or file is over a cap: `body_too_large`, `too_large`.",
        "body_too_large",
        "The body is larger than the 1000000 bytes allowed here.",
        _REQUEST,
    ),
    415: _error(
        "The body's type or encoding is not read here: `unsupported_media_type`.",
        "unsupported_media_type",
        "The body must be JSON, with `Content-Type: application/json`.",
        _REQUEST,
        "Content-Type",
    ),
    422: _error(
        "A value cannot be used; `param` names it: `missing_field`, `unknown_field`, `type_error`, `out_of_range`, "
        "`not_finite`, `invalid_value`, `invalid_format`, `duplicate_key`, `invalid_limit`, `idempotency_key_reused`.",
        "out_of_range",
        "`objective.mask_probability`: input should be less than 1; given was 1.5.",
        _REQUEST,
        "objective.mask_probability",
    ),
    429: _error(
        "Too many at once, from this caller: `concurrency_limit`, `rate_limit`; wait as `Retry-After` says.",
        "concurrency_limit",
        "1000 jobs are queued or running, which is the limit of this project.",
        "rate_limit_error",
    ),
    500: _error(
        "A fault of the server: `internal_error`. The `x-request-id` of the reply finds it in the log.",
        "internal_error",
        "The server failed; the fault is logged under this reply's x-request-id.",
        "server_error",
    ),
    503: _error(
        "The database, the store or the broker cannot be reached: retry after `Retry-After` seconds.",
        "database_unavailable",
        "The database cannot be reached just now.",
        "server_error",
    ),
}
