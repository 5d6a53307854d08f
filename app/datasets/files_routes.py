"""`/v1/files`: the door for programs written for the OpenAI API. A file id is a dataset id."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query, Request, Response

from app.auth.audit import audited
from app.datasets import forms, plain, removal, service
from app.datasets.file_schemas import FileDeleted, FileList, FileObject, as_file, as_result, check_file_form
from app.datasets.intake import Form, digest_of_form, receive
from app.datasets.submission import submit_file
from app.datasets.tables import Dataset
from app.deps import PageDep, PlatformDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep, StoreDep, WriteKey
from app.downloads import Download, bytes_response, file_response
from app.edge import api_router, streamed
from app.fine_tuning import results
from app.pagination import paginate
from app.threads import in_thread

router = api_router("files")
FilePath = Annotated[
    str, Path(max_length=64, description="id of the file, which is a dataset's", examples=["ds_01jd3w8m6k"])
]


@router.post("/files", response_model=FileObject, **forms.FILE)
@streamed(digest_of_form)
async def create_file(request: Request, key: WriteKey, platform: PlatformDep) -> Response:
    """Upload one file; it becomes a dataset with the same id, so everything of `/v1/datasets` works on it.

    One of purpose `batch` is kept as it is, for `POST /v1/batches`.
    """
    made, limit = service.new_dataset_id(), platform.settings.max_upload_bytes
    form = Form("file", forms.FILE_FIELDS, service.upload_key(made), limit, check_file_form)
    async with receive(request, platform, form, key.project_id) as received:
        return await in_thread(submit_file, request, key.project_id, made, received)


@router.get("/files", response_model=FileList)
def list_files(
    key: ReadKey,
    session: ReadSessionDep,
    page: PageDep,
    purpose: Annotated[plain.Listed | None, Query(description="only files with this purpose")] = None,
) -> Any:
    """Every dataset of the project as a file, and the files of batches, newest first."""
    return paginate(session, plain.of_purpose(key.project_id, purpose), Dataset, page, as_file)


@router.get("/files/{file_id}")
def get_file(file_id: FilePath, key: ReadKey, session: ReadSessionDep) -> FileObject:
    """One file. `GET /v1/datasets/{id}` says more."""
    if results.is_result(file_id):
        return as_result(results.read(session, key.project_id, file_id))
    return as_file(plain.get(session, key.project_id, file_id))


@router.delete("/files/{file_id}")
@audited("dataset.deleted")
def delete_file(
    file_id: FilePath, key: WriteKey, session: SessionDep, settings: SettingsDep, store: StoreDep
) -> FileDeleted:
    """Delete a file, which is its dataset. 409 `in_use` while a job that has not ended reads it."""
    removal.delete(session, settings, store, plain.get(session, key.project_id, file_id))
    return FileDeleted(id=file_id)


@router.get("/files/{file_id}/content", response_class=Response, responses=forms.BYTES)
def download_file(
    file_id: FilePath, request: Request, key: ReadKey, session: ReadSessionDep, store: StoreDep
) -> Response:
    """The bytes as they were uploaded: strong `ETag`, one `Range`, `If-Range`, `If-None-Match`."""
    if results.is_result(file_id):
        return bytes_response(results.read(session, key.project_id, file_id).content, results.FILENAME)
    row = plain.get(session, key.project_id, file_id)
    session.close()
    return file_response(request, store, Download(row.key, row.bytes, row.sha256, row.filename))
