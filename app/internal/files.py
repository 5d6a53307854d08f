"""Files over the worker's door: streamed straight to the store, hashed off the event loop, recorded under the fence."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request
from pydantic import ValidationError

from app.downloads import Download
from app.errors import ApiError, NotFound, Unprocessable
from app.internal.schemas import FileEntry, FileHeaders
from app.jobs import artifacts, attempts
from app.jobs.artifacts import FileClaim
from app.jobs.transitions import LeaseLost
from app.models.service import StoredFile
from app.platform import Platform, session_scope
from app.threads import in_thread

_NAMES = {"path": "path", "fence": "X-Fence", "size": "Content-Length", "sha256": "X-Content-SHA256"}


async def receive(request: Request, platform: Platform, token: str, job_id: str, path: str) -> tuple[FileClaim, bool]:
    """Store the body; returns the file, and whether it is new. No database session lives while bytes flow (T14).

    Raises:
        Unprocessable: a header or the path is malformed.
        ApiError: 400 `digest_mismatch`, the bytes are not what the headers say.
        LeaseLost: another attempt owns the job, before or after the transfer.
    """
    fence, file = _declared(request, path)

    def reserve() -> str | None:
        with session_scope(platform) as session:
            attempt = attempts.identify(session, token, job_id)
            return None if artifacts.known_file(session, attempt, fence, file) else artifacts.new_key(attempt, file)

    def record() -> None:
        with session_scope(platform) as session:
            artifacts.record_file(session, attempts.identify(session, token, job_id), fence, file, stored.key)

    key = await in_thread(reserve)
    if key is None:
        return file, False
    stored = await platform.store.put_stream(key, request.stream(), limit=file.size)
    if (stored.size, stored.sha256) != (file.size, file.sha256):
        await in_thread(platform.store.delete, key)
        raise ApiError(
            "digest_mismatch", f"{stored.size} bytes arrived, with sha256 {stored.sha256}.", "X-Content-SHA256"
        )
    try:
        await in_thread(record)
    except LeaseLost:
        await in_thread(platform.store.delete, key)
        raise
    return file, True


def named(stored: Sequence[StoredFile], path: str) -> Download:
    """The file with this path, ready to send. Raises NotFound."""
    for file in stored:
        if file["path"] == path:
            return Download(file["key"], file["size"], file["sha256"], path.rpartition("/")[2])
    raise NotFound("file", path, "path")


def claims(entries: Sequence[FileEntry]) -> list[FileClaim]:
    """The manifest's entries as the job machine takes them."""
    return [FileClaim(entry.path, entry.size, entry.sha256) for entry in entries]


def _declared(request: Request, path: str) -> tuple[int, FileClaim]:
    """What the headers say is coming."""
    headers = request.headers
    given = {
        "path": path,
        "fence": headers.get("x-fence"),
        "size": headers.get("content-length"),
        "sha256": headers.get("x-content-sha256"),
    }
    try:
        found = FileHeaders.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise Unprocessable("invalid_value", f"{_NAMES[field]}: {first['msg']}.", _NAMES[field]) from None
    return found.fence, FileClaim(found.path, found.size, found.sha256)
