"""`/v1/datasets`: bring data, see what was understood of it, take it away again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from groundwork.errors import Damaged, DatasetInvalid, WaitTimeout
from groundwork.rest.aio.resource import SLOW, AsyncResource, Told
from groundwork.rest.aio.uploads import Began
from groundwork.rest.aio.waiting import blocking, sleep
from groundwork.rest.file_values import Hits, Upload
from groundwork.rest.inputs import as_item
from groundwork.rest.names import path_of
from groundwork.rest.packing import as_one_file
from groundwork.rest.parts import form_fields, media_type
from groundwork.rest.values import BadRow, DatasetFields, Json, NewDataset, Rows, Thing

if TYPE_CHECKING:
    from groundwork.rest.aio.client import AsyncClient


class AsyncDataset(DatasetFields):
    """A dataset, and what can be done with it."""

    _gw: AsyncClient

    def __init__(self, raw: Json, gw: AsyncClient) -> None:
        super().__init__(raw)
        self.__dict__["_gw"] = gw

    async def refresh(self) -> AsyncDataset:
        """As it stands now."""
        return await self._gw.datasets.get(self.id)

    async def wait(self, *, timeout: float | None = None) -> AsyncDataset:
        """As `datasets.wait`."""
        return await self._gw.datasets.wait(self.id, timeout=timeout)

    async def preview(self) -> Rows:
        """As `datasets.preview`."""
        return await self._gw.datasets.preview(self.id)

    async def profile(self) -> Thing:
        """As `datasets.profile`."""
        return await self._gw.datasets.profile(self.id)

    async def errors(self) -> list[BadRow]:
        """As `datasets.errors`."""
        return await self._gw.datasets.errors(self.id)

    async def search(self, query: Any = None, *, model: str | None = None, limit: int = 10, **options: Any) -> Hits:
        """As `datasets.search`."""
        return await self._gw.datasets.search(self.id, query, model=model, limit=limit, **options)

    async def download(self, target: Path | str, *, progress: Told | None = None) -> Path:
        """As `datasets.download`."""
        return await self._gw.datasets.download(self.id, target, progress=progress)

    async def delete(self) -> Json:
        """As `datasets.delete`."""
        return await self._gw.datasets.delete(self.id)


BadRows = list[BadRow]


class AsyncDatasets(AsyncResource):
    """The datasets of the project."""

    def _made(self, raw: Json) -> AsyncDataset:
        return AsyncDataset(raw, self.gw)

    async def upload(
        self,
        file: Path | str,
        *,
        progress: Told | None = None,
        resume: str | None = None,
        began: Began | None = None,
        **fields: Unpack[NewDataset],
    ) -> AsyncDataset:
        """Upload a file, or a folder as a zip, as a dataset; `wait` for it until it is ready.

        A small file is one request. A larger one goes up in parts, each of them checked and sent again where the
        connection breaks; memory stays flat.

        Args:
            progress: called with the bytes that are durable, and the bytes in all.
            resume: the id of an upload that broke; what the server has of it is not sent again.
            began: called with the id of a new upload in parts.
            fields: `name`, `modality`, `columns` (`{"text": "body"}`: which column of yours is what), `metadata`.

        Raises:
            UploadBroken: no answer after every retry; it names what to `resume`.
            APIStatusError: refused; `param` names the field.
            FileNotFoundError: there is no such file.
        """
        with as_one_file(Path(file)) as path:
            size = path.stat().st_size
            if resume is not None:
                upload = await self.gw.uploads.get(resume)
            elif size <= self.gw.uploads.part_bytes:
                return await self._whole(path, size, progress, fields)
            else:
                upload = await self._begin(path, size, began, fields)
            return await self.get(await self.gw.uploads.send(upload, path, progress))

    async def get(self, id: str) -> AsyncDataset:
        """One dataset."""
        return self._made(await self.gw.request("GET", path_of("datasets", id)))

    def list(
        self, *, limit: int | None = None, status: str | None = None, modality: str | None = None
    ) -> AsyncIterator[AsyncDataset]:
        """Iterate over the datasets, newest first, page by page."""
        return self.pages("/datasets", self._made, limit, status=status, modality=modality)

    async def delete(self, id: str) -> Json:
        """Delete it and its bytes; the answer names `models` that stay. Raises Conflict while a job reads it."""
        return await self.gw.transport.delete(path_of("datasets", id))

    async def wait(self, id: str, *, timeout: float | None = None, poll: float = 0.3) -> AsyncDataset:
        """The dataset once it is ready.

        Args:
            timeout: seconds; None waits for as long as it takes.
            poll: seconds between the first looks; later ones are up to 2 s apart.

        Raises:
            DatasetInvalid: it cannot be used; `rows` says which rows and why.
            WaitTimeout: it has not come to an end.
        """
        started, pause = time.monotonic(), poll
        while True:
            found = await self.get(id)
            if found.status == "ready":
                return found
            if found.status == "invalid":
                raise DatasetInvalid(found, await self.errors(id))
            if timeout is not None and time.monotonic() - started > timeout:
                raise WaitTimeout(f"dataset {id} is still {found.status} after {timeout:g} s")
            await sleep(pause)
            pause = min(pause * 1.2, max(2.0, poll))

    async def preview(self, id: str) -> Rows:
        """Up to 20 rows as they were understood. Raises Conflict `not_ready`."""
        found: Rows = (await self.gw.request("GET", path_of("datasets", id, "preview")))["rows"]
        return found

    async def profile(self, id: str) -> Thing:
        """Counts, lengths, classes, duplicates. Raises Conflict `not_ready`."""
        return Thing(await self.gw.request("GET", path_of("datasets", id, "profile")))

    async def errors(self, id: str) -> BadRows:
        """The rows that were left out and why, or what made all of it invalid; the first 1,000."""
        found = await self.gw.request("GET", path_of("datasets", id, "errors"))
        return [BadRow(row) for row in found["data"]]

    async def search(
        self, id: str, query: Any = None, *, model: str | None = None, limit: int = 10, **options: Any
    ) -> Hits:
        """The rows nearest to a text, a picture, a sound, a chain or a row, by the vectors of an `embed` job.

        Args:
            query: an item as of `models.embed`; or give `vector` in the options.
            model: a model's id, needed where several have embedded the dataset.
            options: `vector`, `filter` (`{"label": …}`), `exact`, `preview`, as the API has them.

        Raises:
            Conflict: `not_embedded`, no such job has succeeded.
        """
        asked = {"query": None if query is None else as_item(query), "model": model}
        body = {**{name: value for name, value in asked.items() if value is not None}, "limit": limit, **options}
        return Hits(await self.gw.request("POST", path_of("datasets", id, "search"), json=body, timeout=SLOW))

    async def download(self, id: str, target: Path | str, *, progress: Told | None = None) -> Path:
        """The file as it was uploaded, into a file or a folder; its path. Raises as `save`."""
        return await self.save(path_of("datasets", id, "content"), Path(target), otherwise=id, progress=progress)

    async def _whole(self, path: Path, size: int, progress: Told | None, fields: Any) -> AsyncDataset:
        content = await blocking(path.read_bytes)
        digest = hashlib.sha256(content).hexdigest()
        form = {"file": (path.name, content, media_type(path))}
        made = self._made(await self.gw.request("POST", "/datasets", data=form_fields(fields), files=form))
        if made.sha256 != digest:
            raise Damaged(f"{path.name} arrived with another sha256 than it has; it is dataset {made.id}")
        if progress is not None:
            progress(size, size)
        return made

    async def _begin(self, path: Path, size: int, began: Began | None, fields: Any) -> Upload:
        given = {name: value for name, value in fields.items() if value is not None}
        upload = await self.gw.uploads.create(path.name, size, media_type(path), **given)
        if began is not None:
            began(upload.id)
        return upload
