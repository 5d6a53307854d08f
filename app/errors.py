"""Errors know their status and their meaning; raised anywhere, rendered once (app/failures.py).

ApiError                 400 invalid_request_error
├── Unauthorized         401 authentication_error
├── Forbidden            403 permission_error
├── NotFound             404 a foreign id and a missing id are the same bytes
├── RequestTimeout       408 the body came too slowly
├── Conflict             409 the state does not allow it; a retry will not help
├── NotAcceptable        406
├── TooLarge             413
├── UnsupportedMedia     415
├── Unprocessable        422 names the field
├── TooMany              429 with Retry-After
├── Unavailable          503 with Retry-After
└── InsufficientStorage  507 with Retry-After
"""

from __future__ import annotations

from typing import ClassVar

from ssl_core.redaction import redacted


class ApiError(Exception):
    """One envelope: `{"error": {"message", "type", "param", "code"}}`."""

    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"

    def __init__(
        self, code: str, message: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = redacted(message)  # a key sent in the wrong place is not told back, or to a log
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, dict[str, str | None]]:
        """The envelope."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class Unauthorized(ApiError):
    """Missing, unknown, revoked, expired or malformed key: one and the same answer."""

    status = 401
    type = "authentication_error"

    def __init__(self) -> None:
        super().__init__(
            "invalid_api_key", "The API key is missing or not valid.", headers={"WWW-Authenticate": "Bearer"}
        )


class Forbidden(ApiError):
    """The key is known and lacks a scope, or the standing quota is used up."""

    status = 403
    type = "permission_error"


class NotFound(ApiError):
    """No such thing in this project."""

    status = 404

    def __init__(self, kind: str, id: str, param: str | None = "id") -> None:
        super().__init__("not_found", f"No {kind} with id {id!r}.", param)


class RequestTimeout(ApiError):
    """The sender took too long; the connection is closed."""

    status = 408

    def __init__(self, message: str) -> None:
        super().__init__("request_timeout", message, headers={"Connection": "close"})


class Conflict(ApiError):
    """The thing's state does not allow it."""

    status = 409
    type = "conflict_error"

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(code, message, param, headers={"x-should-retry": "false"})


class NotAcceptable(ApiError):
    """The Accept header rules out everything this route can answer."""

    status = 406

    def __init__(self, message: str) -> None:
        super().__init__("not_acceptable", message, "Accept")


class UnsupportedMedia(ApiError):
    """The body's type or encoding is not read here; `param` names the header or the file."""

    status = 415

    def __init__(self, message: str, param: str, code: str = "unsupported_media_type") -> None:
        super().__init__(code, message, param)


class TooLarge(ApiError):
    """The body or the file is over a cap."""

    status = 413


class Unprocessable(ApiError):
    """A field's value cannot be used; `param` names it."""

    status = 422


class TooMany(ApiError):
    """The caller's rate or concurrency limit."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, code: str, message: str, retry_after: int = 1) -> None:
        super().__init__(code, message, headers={"Retry-After": str(retry_after)})


class Unavailable(ApiError):
    """Ours to mend: database, broker or disk; try again."""

    status = 503
    type = "server_error"

    def __init__(self, code: str, message: str, retry_after: int = 2) -> None:
        super().__init__(code, message, headers={"Retry-After": str(retry_after)})


class InsufficientStorage(ApiError):
    """The disk or the bucket is full."""

    status = 507
    type = "server_error"

    def __init__(self, code: str, message: str, retry_after: int = 60) -> None:
        super().__init__(code, message, headers={"Retry-After": str(retry_after)})
