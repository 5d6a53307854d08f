"""`/v1/batches`: many embeddings or predictions at once, for programs written for the OpenAI API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Request

from app.batches import service, submission
from app.batches.schemas import BatchCreate, BatchList, BatchObject
from app.deps import PageDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep, StoreDep, WriteKey
from app.edge import api_router, resent
from app.jobs import control, limits, pages
from app.jobs.submission import Sent

router = api_router("batches")
BatchId = Annotated[str, Path(max_length=64, examples=["job_01jd3w9aaa"])]


@router.post("/batches")
def create_batch(
    body: BatchCreate, request: Request, key: WriteKey, session: SessionDep, settings: SettingsDep, store: StoreDep
) -> BatchObject:
    """Answer every request of a file, in a job of type `batch`.

    Each line is `{"custom_id", "method": "POST", "url", "body"}`, with the body that would be posted to `url`; all
    lines name the same model. What is wrong with the file is told by the batch's `errors`, what is wrong with one
    request by its line in the error file.
    """
    sent = Sent(request.state.body, resent(request))
    job = submission.create(session, settings, store, key.project_id, body, sent)
    return service.shown(session, [job])[0]


@router.get("/batches", response_model=BatchList)
def list_batches(key: ReadKey, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """The project's batches, newest first."""
    return service.listed(session, key.project_id, page)


@router.get("/batches/{batch_id}")
def get_batch(batch_id: BatchId, key: ReadKey, session: ReadSessionDep) -> BatchObject:
    """One batch."""
    return service.get(session, key.project_id, batch_id)


@router.post("/batches/{batch_id}/cancel")
def cancel_batch(batch_id: BatchId, key: WriteKey, session: SessionDep, settings: SettingsDep) -> BatchObject:
    """End it; what it had answered so far is not kept. Again is a no-op, 409 once it has ended otherwise."""
    pages.one_batch(session, key.project_id, batch_id)
    control.cancel(session, key.project_id, batch_id, limits.of(settings))
    return service.get(session, key.project_id, batch_id)
