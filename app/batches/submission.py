"""From a file of requests to its job, which is made where all jobs are made, under the same checks."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy.orm import Session

from app.batches.schemas import BatchCreate
from app.datasets import plain
from app.errors import NotFound
from app.jobs import submission
from app.jobs.schemas import JobObject, as_job
from app.models import service as models
from app.settings import Settings
from app.storage import Store
from ssl_core.requests import lines
from ssl_core.spec import BatchSpec

_PIECE = 64 << 10


def create(
    session: Session, settings: Settings, store: Store, project_id: str, body: BatchCreate, sent: submission.Sent
) -> JobObject:
    """A queued job, or the one that the same request made a moment ago.

    Raises:
        Unprocessable: `not_found` or `wrong_purpose` at `input_file_id`.
        TooMany: 429 `concurrency_limit`.
    """
    file = plain.of_requests(session, project_id, body.input_file_id, "input_file_id")
    key, size = file.key, file.bytes
    session.commit()  # nothing of the database is held while the store is read
    named = lines.model_named(_head(store, key, size))
    spec = BatchSpec(
        file=body.input_file_id, endpoint=body.endpoint, model=_known(session, project_id, named),
        metadata=body.metadata or {}, resources=body.resources,
    )  # fmt: skip
    return as_job(submission.create(session, settings, project_id, spec, sent))


def _head(store: Store, key: str, size: int) -> bytes:
    """The file's beginning, as far as the end of its first line that is not blank or of the longest line allowed."""
    head = b""
    while len(head) < min(size, lines.MAX_LINE_BYTES) and b"\n" not in head.lstrip():
        head += store.get_range(key, len(head), min(size, len(head) + max(_PIECE, len(head))))
    return head


def _known(session: Session, project_id: str, model_id: str | None) -> str | None:
    """The id, if the project has such a model. Where it has none the job says so, line by line."""
    with suppress(NotFound):
        return None if model_id is None else models.get(session, project_id, model_id[:64]).id
    return None
