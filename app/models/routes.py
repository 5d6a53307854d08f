"""`/v1/models`: what jobs have trained."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request, Response
from sqlalchemy.orm import Session

from app.auth.audit import audited
from app.db import after_commit
from app.deps import PlatformDep, ReadKey, ReadSessionDep, SessionDep, StoreDep, WriteKey
from app.downloads import Download, file_response
from app.edge import api_router, streamed
from app.errors import Conflict
from app.jobs import service as jobs
from app.jobs.schemas import JobObject
from app.models import imports, service
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
from app.pagination import LargePageDep, paginate
from app.storage import Store
from app.threads import in_thread

router = api_router("models")
ModelPath = Annotated[str, Path(max_length=64, description="id of the model", examples=["mdl_01jd3w9qz2"])]
_ZIP = "application/zip"
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "the file"},
    206: {"description": "the one range asked for"},
    304: {"description": "the file with the sha256 of `If-None-Match`"},
}


@router.post("/models", status_code=201, response_model=JobObject, **imports.OPENAPI)
@streamed(imports.digest_of_body)
async def import_model(request: Request, key: WriteKey, platform: PlatformDep) -> Response:
    """Import a public model: a zip of its folder (`config.json`, safetensors, tokenizer), or a hub's repository.

    A job of type `import` reads it; its `result` names the model. Tensors that do not match are listed as the job's
    events, and fewer than `least_share` of them fail it with `import_mismatch`. Pickles are refused.
    """
    return await imports.receive_import(request, platform, key.project_id)


@router.get("/models", response_model=ModelList)
def list_models(key: ReadKey, session: ReadSessionDep, page: LargePageDep) -> Any:
    """The models of the project, newest first: all of them at once, as OpenAI's clients expect, up to 1,000."""
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
@audited("model.deleted")
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
async def download_model(
    model_id: ModelPath,
    request: Request,
    key: ReadKey,
    session: ReadSessionDep,
    platform: PlatformDep,
    format: Annotated[
        Literal["native", "hf", "onnx"],
        Query(description="`native`: the model folder; `hf`: for transformers; `onnx`: for ONNX runtimes; each a zip"),
    ] = "native",
) -> Response:
    """The whole model as one file: `ssl_core.inference.load` opens the unpacked folder in any process.

    The first native download of a model waits until its zip is made. `hf` and `onnx` are made by a job of type
    `export`; before that they answer 409 `not_exported`.
    """
    file, files = await in_thread(_archived, session, key.project_id, model_id, format)
    if files:
        made = await make_archive(platform, model_id, files)
        file = replace(file, size=made.size, sha256=made.sha256)
    return await in_thread(file_response, request, platform.store, file)


def _archived(
    session: Session, project_id: str, model_id: str, format: str
) -> tuple[Download, list[service.StoredFile]]:
    """The zip to send, and the files that it is to be made of if there is none yet. Needs the session no longer."""
    row = service.get(session, project_id, model_id)
    if format != "native":
        made = service.export_of(session, row.id, format)
        file, files = Download(made.key, made.size, made.sha256, f"{row.name}-{format}.zip", _ZIP), []
    else:
        known = row.archive_bytes is not None and row.archive_sha256 is not None
        size, digest = row.archive_bytes or 0, row.archive_sha256 or ""
        file = Download(service.archive_key(row.id), size, digest, f"{row.name}.zip", _ZIP)
        files = [] if known else service.files_of(session, row.id)
    session.close()
    return file, files


def _card(store: Store, files: list[service.StoredFile]) -> dict[str, Any] | None:
    at = next((file for file in files if file["path"] == "card.json"), None)
    if at is None:
        return None
    card: dict[str, Any] = json.loads(store.get(at["key"]))
    return card
