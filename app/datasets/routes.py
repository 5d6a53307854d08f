"""`/v1/datasets`: bring data, see what was understood of it, take it away again."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response

from app.auth.audit import audited
from app.datasets import files_routes, forms, removal, service, uploads_routes
from app.datasets.intake import Form, digest_of_form, receive
from app.datasets.schemas import (
    BadRowList,
    DatasetDeleted,
    DatasetList,
    DatasetObject,
    DatasetPreview,
    DatasetProfile,
    as_object,
    read_form,
)
from app.datasets.submission import submit_dataset
from app.datasets.tables import Dataset
from app.deps import PageDep, PlatformDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep, StoreDep, WriteKey
from app.downloads import Download, file_response
from app.edge import api_router, streamed
from app.pagination import paginate
from app.storage import Store
from app.threads import in_thread

router = api_router("datasets")
DatasetPath = Annotated[str, Path(max_length=64, description="id of the dataset", examples=["ds_01jd3w8m6k"])]


@router.post("/datasets", status_code=201, response_model=DatasetObject, **forms.DATASET)
@streamed(digest_of_form)
async def create_dataset(request: Request, key: WriteKey, platform: PlatformDep) -> Response:
    """Upload one file as a dataset; a job then ingests it, so poll `GET /v1/datasets/{id}` until it is `ready`.

    Formats: `.txt`, `.jsonl`, `.csv`, `.tsv`, `.parquet`, and `.zip`/`.tar`/`.tar.gz` of pictures, flat or in one
    folder per class. Fields may come before or after the file; before is better, a wrong one is then refused at once.
    """
    made = service.new_dataset_id()
    form = Form("file", forms.DATASET_FIELDS, service.upload_key(made), platform.settings.max_upload_bytes, read_form)
    async with receive(request, platform, form, key.project_id) as received:
        return await in_thread(submit_dataset, request, key.project_id, made, received)


@router.get("/datasets", response_model=DatasetList)
def list_datasets(
    key: ReadKey,
    session: ReadSessionDep,
    page: PageDep,
    status: Annotated[service.Status | None, Query(description="only datasets with this status")] = None,
    modality: Annotated[str | None, Query(max_length=32, description="only datasets of this modality")] = None,
) -> Any:
    """The datasets of the project, newest first."""
    return paginate(session, service.listed(key.project_id, status, modality), Dataset, page, as_object)


@router.get("/datasets/{dataset_id}")
def get_dataset(dataset_id: DatasetPath, key: ReadKey, session: ReadSessionDep) -> DatasetObject:
    """One dataset: its status, and once it is ready what ingest counted."""
    return as_object(service.get(session, key.project_id, dataset_id))


@router.delete("/datasets/{dataset_id}")
@audited("dataset.deleted")
def delete_dataset(
    dataset_id: DatasetPath, key: WriteKey, session: SessionDep, settings: SettingsDep, store: StoreDep
) -> DatasetDeleted:
    """Delete a dataset and its bytes. 409 `in_use` while an unfinished job reads it; its own ingest is cancelled.

    Models whose jobs read it stay, and are named in the reply."""
    saw = removal.delete(session, settings, store, service.get(session, key.project_id, dataset_id))
    return DatasetDeleted(id=dataset_id, models=saw)


@router.get("/datasets/{dataset_id}/preview")
def preview_dataset(dataset_id: DatasetPath, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> DatasetPreview:
    """Up to 20 rows as they were understood; pictures as small data URIs. 409 `not_ready` until it is ready."""
    file = service.folder_file(session, key.project_id, dataset_id, "preview.json")
    session.close()  # nothing of the database is held while the store is read
    return DatasetPreview(id=dataset_id, rows=_rows(store, file))


@router.get("/datasets/{dataset_id}/profile")
def profile_dataset(dataset_id: DatasetPath, key: ReadKey, session: ReadSessionDep) -> DatasetProfile:
    """Counts, lengths, class histogram, duplicates. 409 `not_ready` until the dataset is ready."""
    profile = service.profile(session, key.project_id, dataset_id)
    return DatasetProfile.model_validate({**profile, "id": dataset_id})


@router.get("/datasets/{dataset_id}/errors")
def list_dataset_errors(dataset_id: DatasetPath, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> BadRowList:
    """The rows that were left out and why, or what made the whole dataset invalid; the first 1,000."""
    row = service.get(session, key.project_id, dataset_id)
    if row.status == "invalid":
        return BadRowList.of_invalid(row)
    file = service.folder_file(session, key.project_id, dataset_id, "errors.jsonl")
    session.close()
    lines = store.get(file["key"]).splitlines() if file is not None else []
    return BadRowList.of_lines(lines, row.bad_rows or 0)


@router.get("/datasets/{dataset_id}/content", response_class=Response, responses=forms.BYTES)
def download_dataset(
    dataset_id: DatasetPath, request: Request, key: ReadKey, session: ReadSessionDep, store: StoreDep
) -> Response:
    """The file as it was uploaded: strong `ETag` (its sha256), one `Range`, `If-Range`, `If-None-Match`."""
    row = service.get(session, key.project_id, dataset_id)
    session.close()
    return file_response(request, store, Download(row.key, row.bytes, row.sha256, row.filename))


def _rows(store: Store, file: service.StoredFile | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    preview = json.loads(store.get(file["key"]))
    rows: list[dict[str, Any]] = preview["rows"] if isinstance(preview, dict) else preview
    return rows


router.include_router(files_routes.router)
router.include_router(uploads_routes.router)
