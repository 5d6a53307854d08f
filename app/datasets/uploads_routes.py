"""`/v1/uploads`: a large file in parts that survives broken connections. Same shapes as the OpenAI API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Request

from app.datasets import assembly, forms, uploads
from app.datasets.file_schemas import (
    PartObject,
    UploadComplete,
    UploadCreate,
    UploadDetail,
    UploadObject,
    as_detail,
    as_part,
    as_upload,
)
from app.datasets.intake import Form, Received, digest_of_form, receive
from app.deps import PlatformDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep, StoreDep, WriteKey
from app.edge import api_router, streamed
from app.errors import ApiError
from app.ids import new_id
from app.platform import Platform, read_scope, session_scope
from app.threads import in_thread

router = api_router("uploads")
UploadPath = Annotated[str, Path(max_length=64, description="id of the upload", examples=["upl_01jd3w8m6k"])]
_GONE: dict[int | str, dict[str, Any]] = {410: forms.EXPIRED}


@router.post("/uploads")
def create_upload(body: UploadCreate, key: WriteKey, session: SessionDep, settings: SettingsDep) -> UploadObject:
    """Begin an upload; room for the whole file is promised now. It expires a day later unless it is completed."""
    return as_upload(uploads.create(session, settings, key.project_id, body), 0)


@router.get("/uploads/{upload_id}")
def get_upload(upload_id: UploadPath, key: ReadKey, session: ReadSessionDep) -> UploadDetail:
    """Where an upload stands, with the parts that are durable: what a client that lost its place goes on from."""
    row = uploads.get(session, key.project_id, upload_id)
    shown = as_detail(row, uploads.parts(session, row.id), uploads.file_of(session, row))
    return shown.model_copy(update={"status": uploads.status(session, row)})


@router.post("/uploads/{upload_id}/parts", **{**forms.PART, "responses": forms.UPLOAD_ERRORS | _GONE})
@streamed(digest_of_form)
async def create_part(upload_id: UploadPath, request: Request, key: WriteKey, platform: PlatformDep) -> PartObject:
    """Add a part, in any order and several at once. The same bytes sent again are the same part.

    Once this answers, the part is on disk. A part that broke off left nothing; send it again.
    """
    limit = await in_thread(_check, platform, key.project_id, upload_id)
    stored_at = uploads.part_key(upload_id, new_id("part"))
    async with receive(request, platform, Form("data", forms.PART_FIELDS, stored_at, limit), None) as received:
        return await in_thread(_add, platform, key.project_id, upload_id, received)


@router.post("/uploads/{upload_id}/complete", responses=_GONE)
async def complete_upload(
    upload_id: UploadPath, body: UploadComplete, key: WriteKey, platform: PlatformDep
) -> UploadObject:
    """Join the parts in the order given and make the dataset. The same request again gets the same reply.

    400 `parts_missing` where they do not come to the declared bytes, 400 `digest_mismatch` where the content differs.
    """
    return await assembly.complete(platform, key.project_id, upload_id, body)


@router.post("/uploads/{upload_id}/cancel", responses=_GONE)
def cancel_upload(upload_id: UploadPath, key: WriteKey, session: SessionDep, store: StoreDep) -> UploadObject:
    """Give an upload up; its parts are deleted and its room is free again."""
    return as_upload(uploads.cancel(session, store, key.project_id, upload_id), 0)


def _check(platform: Platform, project_id: str, upload_id: str) -> int:
    with read_scope(platform) as session:
        return uploads.check_part(session, project_id, upload_id)


def _add(platform: Platform, project_id: str, upload_id: str, received: Received) -> PartObject:
    sent, got = received.fields.get("sha256"), received.stored.sha256
    if sent is not None and sent.lower() != got:
        raise ApiError("digest_mismatch", f"The part's sha256 is {got}, not {sent[:80]}.", "sha256")
    with session_scope(platform) as session:
        return as_part(uploads.add_part(session, platform.store, project_id, upload_id, received.stored))
