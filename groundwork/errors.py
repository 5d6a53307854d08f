"""What can go wrong between this client and a server; the text of each is one line that a person can act on.

GroundworkError
├── NotConfigured        no URL or no API key
├── ConnectionFailed     no answer, after every retry
│   └── UploadBroken     .upload_id goes on with it: `datasets.upload(file, resume=upload_id)`
├── APIStatusError       the server refused: .status .code .param .request_id
│   ├── BadRequest       400
│   ├── Unauthorized     401
│   ├── Forbidden        403
│   ├── NotFound         404 missing, or another project's
│   ├── Conflict         409 the state does not allow it
│   ├── TooLarge         413
│   ├── Unprocessable    422 .param names the field
│   ├── RateLimited      429 still, after every retry
│   └── ServerError      5xx
├── JobFailed            .job ended failed or cancelled
├── DatasetInvalid       .dataset cannot be used; .rows says which rows and why
├── WaitTimeout          it has not ended in the time given; a TimeoutError, too
├── Damaged              what arrived is not what was sent
└── UnsafeName           a file of the server would land outside the folder given
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

    from groundwork.rest.values import BadRow, DatasetFields, JobFields


class GroundworkError(Exception):
    """Everything that this client raises on its own, apart from what Python says of local files."""


class NotConfigured(GroundworkError):
    """The address or the key of the server is missing or cannot be one."""


class ConnectionFailed(GroundworkError):
    """The server could not be reached, or did not answer in time, after every retry."""


class UploadBroken(ConnectionFailed):
    """An upload in parts stopped; the parts that arrived stay on the server for a day."""

    def __init__(self, upload_id: str, filename: str, told: str) -> None:
        super().__init__(f"the upload of {filename} broke off ({told}); go on with resume={upload_id!r}")
        self.upload_id, self.told = upload_id, told


class APIStatusError(GroundworkError):
    """The server's answer was an error; `code`, `param` and `message` are the envelope's.

    `repeated`: an earlier try of the same request got no answer, so the server may have done it already.
    """

    def __init__(self, status: int, error: dict[str, Any], request_id: str | None = None) -> None:
        self.status, self.request_id, self.repeated = status, request_id, False
        self.message = " ".join(str(error.get("message") or "no message").split())
        self.code: str | None = error.get("code")
        self.param: str | None = error.get("param")
        super().__init__(f"{self.message} [{status}{f' {self.code}' if self.code else ''}]")

    @staticmethod
    def of(answer: httpx2.Response) -> APIStatusError:
        """The error that an answer is, of the class that its status has."""
        kind = _KINDS.get(answer.status_code, ServerError if answer.status_code >= 500 else APIStatusError)
        try:
            error = dict(answer.json()["error"])
        except (ValueError, KeyError, TypeError):  # not ours: some proxy's page
            moved = f"the server says to ask {answer.headers['location']}" if "location" in answer.headers else ""
            error = {"message": moved or answer.text[:200].strip() or answer.reason_phrase}
        return kind(answer.status_code, error, answer.headers.get("x-request-id"))


class BadRequest(APIStatusError):
    """400: the request cannot be read."""


class Unauthorized(APIStatusError):
    """401: the key is missing, unknown, expired or revoked."""


class Forbidden(APIStatusError):
    """403: the key lacks a scope, or a quota is used up."""


class NotFound(APIStatusError):
    """404: no such thing in this project."""


class Conflict(APIStatusError):
    """409: its state does not allow it."""


class TooLarge(APIStatusError):
    """413: larger than the server takes, or than there is room."""


class Unprocessable(APIStatusError):
    """422: a value cannot be used; `param` names the field."""


class RateLimited(APIStatusError):
    """429: too many requests, still after every retry."""


class ServerError(APIStatusError):
    """5xx: the server's own fault, or something it stands on is away."""


class JobFailed(GroundworkError):
    """A job ended other than `succeeded`; `job` is its last state."""

    def __init__(self, job: JobFields) -> None:
        why = f": {' '.join(job.error.message.split())}" if job.error else ""
        code = f" [{job.error.code}]" if job.error and job.error.code else ""
        super().__init__(f"{job.type} job {job.id} ended {job.status}{why}{code}")
        self.job = job


class DatasetInvalid(GroundworkError):
    """A dataset cannot be used; `rows` are those at fault, as the server tells them."""

    def __init__(self, dataset: DatasetFields, rows: list[BadRow]) -> None:
        error = dataset.error
        why = " ".join(error.message.split()) if error and error.message else "no reason given"
        where = f"{error.param}: " if error and error.param and error.param not in why else ""
        code = f" [{error.code}]" if error and error.code else ""
        super().__init__(f"dataset {dataset.id} ({dataset.filename}) is invalid: {where}{why}{code}")
        self.dataset, self.rows = dataset, rows


class WaitTimeout(GroundworkError, TimeoutError):
    """It goes on, but it has not ended in the time given."""


class Damaged(GroundworkError):
    """A download's or an upload's digest is not the one that the other side has."""


class UnsafeName(GroundworkError):
    """A name that the server gave does not stay in the folder that the caller gave."""


_KINDS: dict[int, type[APIStatusError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 413: TooLarge,
    422: Unprocessable, 429: RateLimited,
}  # fmt: skip
