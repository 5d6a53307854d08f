"""From a received file to its dataset: one transaction releases the held room, writes row and job, keeps the reply."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.datasets import quota, service
from app.datasets.file_schemas import as_file, read_file_form
from app.datasets.intake import Received
from app.datasets.schemas import as_object, read_form
from app.datasets.tables import Dataset
from app.edge import kept_reply
from app.platform import Platform, session_scope


def submit_dataset(request: Request, project_id: str, dataset_id: str, received: Received) -> JSONResponse:
    """The answer to `POST /v1/datasets`. Raises what `read_form` and `service.create` raise."""
    form = read_form(received.fields)
    columns = {str(ours): theirs for ours, theirs in form.columns.items()}
    new = service.NewDataset(
        dataset_id, received.stored, service.clean_filename(received.filename), name=form.name,
        modality=form.modality, columns=columns, metadata=form.metadata,
    )  # fmt: skip
    return submit(request, project_id, received.hold, new, as_object)


def submit(
    request: Request,
    project_id: str,
    hold: str | None,
    new: service.NewDataset,
    render: Callable[[Dataset], BaseModel],
    status: int = 201,
) -> JSONResponse:
    """Write the dataset; the reply is rendered inside the transaction and kept there when a key was sent."""
    platform: Platform = request.app.state.platform
    with session_scope(platform) as session:
        if hold is not None:
            quota.release(session, hold)
        row = service.create(session, platform.settings, project_id, new)
        return kept_reply(request, session, status, render(row).model_dump(mode="json"))


def submit_file(request: Request, project_id: str, dataset_id: str, received: Received) -> JSONResponse:
    """The answer to `POST /v1/files`, with OpenAI's status. Raises what `read_file_form` and `service.create` raise."""
    purpose = read_file_form(received.fields).purpose
    name = service.clean_filename(received.filename)
    new = service.NewDataset(dataset_id, received.stored, name, purpose=purpose)
    return submit(request, project_id, received.hold, new, as_file, status=200)
