"""`/v1/uploads`: a large file in parts, several at a time, that goes on where it broke."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from groundwork.errors import APIStatusError, ConnectionFailed, Damaged, UploadBroken
from groundwork.rest.aio.resource import AsyncResource, Told
from groundwork.rest.aio.waiting import spread
from groundwork.rest.file_values import Upload
from groundwork.rest.names import path_of
from groundwork.rest.parts import AT_ONCE, PART_BYTES, Part, Reading
from groundwork.rest.retries import passing
from groundwork.rest.values import Json

Began = Callable[[str], None]
"""Called with the id of an upload as soon as there is one: what a later run resumes."""


class AsyncUploads(AsyncResource):
    """Uploads in parts. `part_bytes` is the size of a part; a file of no more goes up whole."""

    part_bytes: int = PART_BYTES

    async def create(self, filename: str, bytes: int, mime_type: str, **fields: object) -> Upload:
        """Begin one; the server keeps room for the whole file for a day."""
        body = {"filename": filename, "bytes": bytes, "mime_type": mime_type, "purpose": "pretrain", **fields}
        return Upload(await self.gw.request("POST", "/uploads", json=body))

    async def get(self, id: str) -> Upload:
        """Where it stands, with the parts that are durable."""
        return Upload(await self.gw.request("GET", path_of("uploads", id)))

    async def cancel(self, id: str) -> Upload:
        """Give it up; its room is free again."""
        return Upload(await self.gw.request("POST", path_of("uploads", id, "cancel")))

    async def send(self, upload: Upload, path: Path, progress: Told | None = None) -> str:
        """Send what of the file is not durable yet, and complete it; the dataset's id.

        Raises:
            UploadBroken: after every retry no answer, or one that it is too much or not possible just now; what arrived
                stays.
            GroundworkError: the upload is of another file.
        """
        reading = Reading(path, path.stat().st_size, self.part_bytes)
        reading.check(upload)
        if upload.status == "completed":
            return str(upload.raw["file"]["id"])
        try:
            ids = await self._parts(upload, reading, progress)
            body = {"part_ids": ids, "sha256": reading.sha256}
            done = await self.gw.request("POST", path_of("uploads", upload.id, "complete"), json=body, timeout=600.0)
        except (ConnectionFailed, APIStatusError) as error:
            if isinstance(error, APIStatusError) and not passing(error):
                raise
            raise UploadBroken(upload.id, path.name, str(error)) from error
        return str(done["file"]["id"])

    async def _parts(self, upload: Upload, reading: Reading, progress: Told | None) -> list[str]:
        """The ids of all parts, in order."""
        durable = {(part["bytes"], part["sha256"]): str(part["id"]) for part in upload.parts}
        ids, sent = [], 0

        async def place(part: Part) -> tuple[str, int]:
            known = durable.get((len(part.content), part.sha256))
            return known or await self._part(upload, part), len(part.content)

        async for id, size in spread(reading.parts(), place, AT_ONCE):
            ids.append(id)
            sent += size
            if progress is not None:
                progress(sent, reading.size)
        return ids

    async def _part(self, upload: Upload, part: Part) -> str:
        made: Json = await self.gw.request(
            "POST",
            path_of("uploads", upload.id, "parts"),
            data={"sha256": part.sha256},
            files={"data": ("part", part.content, "application/octet-stream")},
        )
        if made["sha256"] != part.sha256:
            raise Damaged(f"a part of {upload.filename} arrived with another sha256")
        return str(made["id"])
