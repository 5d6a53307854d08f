"""`/v1/models`: what jobs have trained."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from anyio import from_thread
from fastapi import Path, Query, Request, Response

from app.db import after_commit
from app.deps import PageDep, PlatformDep, ReadKey, ReadSessionDep, SessionDep, StoreDep, WriteKey
from app.downloads import Download, file_response
from app.edge import api_router
from app.errors import Conflict
from app.jobs import service as jobs
from app.models import service
from app.models.archive import make_archive
from app.models.schemas import (
    ModelDeleted,
    ModelDetail,
    ModelFileList,
    ModelList,
    ModelObject,
    ModelPatch,
    as_detail,
    as_file,
    as_object,
)
from app.models.tables import Model
from app.pagination import paginate
from app.storage import Store

router = api_router("models")
ModelPath = Annotated[str, Path(max_length=64, description="id of the model", examples=["mdl_01jd3w9qz2"])]
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "the file"},
    206: {"description": "the one range asked for"},
    304: {"description": "the file with the sha256 of `If-None-Match`"},
}


@router.get("/models", response_model=ModelList)
def list_models(key: ReadKey, session: ReadSessionDep, page: PageDep) -> Any:
    """The models of the project, newest first."""
    return paginate(session, service.of_project(key.project_id), Model, page, as_object)


@router.get("/models/{model_id}")
def get_model(model_id: ModelPath, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> ModelDetail:
    """One model with its card and its lineage."""
    row = service.get(session, key.project_id, model_id)
    files = service.files_of(session, row.id)
    session.close()  # nothing of the database is held while the store is read
    return as_detail(row, _card(store, files))


@router.patch("/models/{model_id}")
def change_model(model_id: ModelPath, body: ModelPatch, key: WriteKey, session: SessionDep) -> ModelObject:
    """Rename a model, or replace its metadata. Its weights never change."""
    row = service.get(session, key.project_id, model_id)
    return as_object(service.update(session, row, body.name, body.metadata))


@router.delete("/models/{model_id}")
def delete_model(model_id: ModelPath, key: WriteKey, session: SessionDep, store: StoreDep) -> ModelDeleted:
    """Delete a model and its files. 409 `in_use` while a job that has not ended starts from it."""
    row = service.lock(session, key.project_id, model_id)
    user = jobs.live_job_using(session, row.id)
    if user is not None:
        raise Conflict("in_use", f"The job {user} uses this model; wait for it or cancel it first.", "id")
    keys = service.remove(session, row)
    after_commit(session, lambda: [store.delete(key) for key in keys])
    return ModelDeleted(id=model_id)


@router.get("/models/{model_id}/files", response_model=ModelFileList)
def list_model_files(model_id: ModelPath, key: ReadKey, session: ReadSessionDep) -> Any:
    """Every file of the model's folder with its size and sha256."""
    row = service.get(session, key.project_id, model_id)
    files = [as_file(row, file) for file in service.rows_of(session, row.id)]
    ends = (files[0].id, files[-1].id) if files else (None, None)
    return {"object": "list", "data": files, "has_more": False, "first_id": ends[0], "last_id": ends[1]}


@router.get("/models/{model_id}/files/{path:path}", response_class=Response, responses=_BYTES)
def get_model_file(
    model_id: ModelPath, path: str, request: Request, key: ReadKey, session: ReadSessionDep, store: StoreDep
) -> Response:
    """One file's bytes: strong `ETag`, one `Range`, `If-Range`."""
    row = service.get(session, key.project_id, model_id)
    file = service.file_at(session, row.id, path)
    session.close()
    name = path.rsplit("/", 1)[-1]
    return file_response(request, store, Download(file["key"], file["size"], file["sha256"], name))


@router.get("/models/{model_id}/download", response_class=Response, responses=_BYTES)
def download_model(
    model_id: ModelPath,
    request: Request,
    key: ReadKey,
    session: ReadSessionDep,
    platform: PlatformDep,
    format: Annotated[Literal["native"], Query(description="`native`: the model folder as a zip")] = "native",
) -> Response:
    """The whole model as one file: `ssl_core.inference.load` opens the unpacked folder in any process.

    The first download of a model waits until its zip is made.
    """
    row = service.get(session, key.project_id, model_id)
    files = service.files_of(session, row.id)
    session.close()
    size, digest = row.archive_bytes, row.archive_sha256
    if size is None or digest is None:
        made = from_thread.run(make_archive, platform, row.id, files)
        size, digest = made.size, made.sha256
    file = Download(service.archive_key(row.id), size, digest, f"{row.name}.zip", "application/zip")
    return file_response(request, platform.store, file)


def _card(store: Store, files: list[service.StoredFile]) -> dict[str, Any] | None:
    at = next((file for file in files if file["path"] == "card.json"), None)
    if at is None:
        return None
    card: dict[str, Any] = json.loads(store.get(at["key"]))
    return card
