"""What the inference role answers when it cannot: the one envelope, each error with its status.

    InferenceError
    ├── Refused   the caller's fault: 401, 404, 413 or 422, with the field
    └── Busy      ours to mend: 503 with Retry-After
"""

from __future__ import annotations


class InferenceError(Exception):
    """Rendered once, in `worker.inference`."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param

    def body(self) -> dict[str, dict[str, str | None]]:
        """The envelope."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class Refused(InferenceError):
    """A retry of the same request will not help."""


class Busy(InferenceError):
    """Try again in a moment."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(503, code, message)
