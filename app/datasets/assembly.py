"""Completing an upload: its parts are joined into one object in the store, hashed on the way, and only then told of.

Two requests that complete the same upload at once each join into an object of their own; the first to commit wins and
the other's object is removed. So a process that dies on the way leaves the upload pending, ready to be completed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from app.datasets import service, uploads
from app.datasets.file_schemas import UploadComplete, UploadObject, as_upload
from app.datasets.tables import Upload
from app.errors import ApiError, Unavailable
from app.platform import Platform, read_scope, session_scope
from app.storage import Store, Stored
from app.threads import in_bulk, in_thread


async def complete(platform: Platform, project_id: str, upload_id: str, body: UploadComplete) -> UploadObject:
    """Join, check, and make the dataset. Raises what `uploads.plan` and `.finish` raise, and 400 `digest_mismatch`."""
    planned = await in_thread(_plan, platform, project_id, upload_id, body)
    if isinstance(planned, UploadObject):
        return planned
    made = service.new_dataset_id()
    md5 = hashlib.md5(usedforsecurity=False)
    try:
        joined = _joined(platform.store, planned.keys, md5)
        stored = await platform.store.put_stream(service.upload_key(made), joined, planned.upload.bytes)
    except FileNotFoundError:
        # Another request has completed or cancelled it meanwhile and its parts are gone: say what that came to.
        again = await in_thread(_plan, platform, project_id, upload_id, body)
        if isinstance(again, UploadObject):
            return again
        raise Unavailable("storage_unavailable", "The parts of this upload cannot be read just now.") from None
    try:
        _check(planned, stored, md5.hexdigest())
        return await in_thread(_finish, platform, planned.upload, body, stored, made)
    except ApiError:
        await in_thread(platform.store.delete, stored.key)
        raise


def _plan(platform: Platform, project_id: str, upload_id: str, body: UploadComplete) -> uploads.Assembly | UploadObject:
    with read_scope(platform) as session:
        planned = uploads.plan(session, project_id, upload_id, body)
        if isinstance(planned, Upload):
            return as_upload(planned, planned.bytes, uploads.file_of(session, planned))
        return planned


def _finish(platform: Platform, planned: Upload, body: UploadComplete, stored: Stored, made: str) -> UploadObject:
    about: dict[str, Any] = planned.about
    new = service.NewDataset(made, stored, planned.filename, purpose=planned.purpose, **about)  # type: ignore[arg-type]
    with session_scope(platform) as session:
        row = uploads.finish(session, platform.settings, platform.store, body, new, planned)
        return as_upload(row, row.bytes, uploads.file_of(session, row))


async def _joined(store: Store, keys: list[str], md5: Any) -> AsyncIterator[bytes]:
    for key in keys:
        async for block in store.stream(key):
            await in_bulk(md5.update, block)
            yield block


def _check(planned: uploads.Assembly, stored: Stored, md5: str) -> None:
    wrong = [digest for digest in planned.sha256 if digest != stored.sha256]
    if planned.md5 is not None and planned.md5 != md5:
        raise ApiError("digest_mismatch", f"The file's md5 is {md5}, not {planned.md5}.", "md5")
    if wrong:
        raise ApiError("digest_mismatch", f"The file's sha256 is {stored.sha256}, not {wrong[0]}.", "sha256")
