"""`/v1/batches`: files of embedding or prediction requests, answered by a job."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundwork.errors import WaitTimeout
from groundwork.rest.aio.resource import AsyncResource
from groundwork.rest.aio.waiting import sleep
from groundwork.rest.file_values import BatchFields
from groundwork.rest.names import path_of
from groundwork.rest.parts import Watched
from groundwork.rest.values import Json

if TYPE_CHECKING:
    from groundwork.rest.aio.client import AsyncClient


class AsyncBatch(BatchFields):
    """A batch, and what can be done with it."""

    _gw: AsyncClient

    def __init__(self, raw: Json, gw: AsyncClient) -> None:
        super().__init__(raw)
        self.__dict__["_gw"] = gw

    async def wait(self, *, timeout: float | None = None) -> AsyncBatch:
        """As `batches.wait`."""
        return await self._gw.batches.wait(self.id, timeout=timeout)

    async def cancel(self) -> AsyncBatch:
        """As `batches.cancel`."""
        return await self._gw.batches.cancel(self.id)

    async def download(self, target: Path | str, *, errors: bool = False) -> Path | None:
        """As `batches.download`."""
        return await self._gw.batches.download(self.id, target, errors=errors)


class AsyncBatches(AsyncResource):
    """The batches of the project."""

    def _made(self, raw: Json) -> AsyncBatch:
        return AsyncBatch(raw, self.gw)

    async def create(self, file: Path | str, endpoint: str, *, metadata: dict[str, str] | None = None) -> AsyncBatch:
        """Answer every request of a file.

        Args:
            file: JSON lines `{"custom_id", "method": "POST", "url": endpoint, "body"}`, all of one model; or the id of
                such a file that the server has (`ds_…`).
            endpoint: `/v1/embeddings` or `/v1/predictions`.
        """
        known = str(file) if isinstance(file, str) and not Path(file).exists() and file.startswith("ds_") else None
        body: Json = {"input_file_id": known or await self._send(Path(file)), "endpoint": endpoint}
        if metadata is not None:
            body["metadata"] = metadata
        return self._made(await self.gw.request("POST", "/batches", json={**body, "completion_window": "24h"}))

    async def get(self, id: str) -> AsyncBatch:
        """One batch."""
        return self._made(await self.gw.request("GET", path_of("batches", id)))

    def list(self, *, limit: int | None = None) -> AsyncIterator[AsyncBatch]:
        """Iterate over the batches, newest first."""
        return self.pages("/batches", self._made, limit)

    async def cancel(self, id: str) -> AsyncBatch:
        """End it."""
        return self._made(await self.gw.request("POST", path_of("batches", id, "cancel")))

    async def wait(self, id: str, *, timeout: float | None = None, poll: float = 0.5) -> AsyncBatch:
        """The batch once it has ended, however that was; `status` tells. Raises WaitTimeout."""
        started, pause = time.monotonic(), poll
        while True:
            found = await self.get(id)
            if found.ended:
                return found
            if timeout is not None and time.monotonic() - started > timeout:
                raise WaitTimeout(f"batch {id} is still {found.status} after {timeout:g} s")
            await sleep(pause)
            pause = min(pause * 1.2, max(2.0, poll))

    async def download(self, id: str, target: Path | str, *, errors: bool = False) -> Path | None:
        """Its answers, or with `errors` the requests that have none, as JSON lines; None where there are none."""
        batch = await self.get(id)
        file = batch.error_file_id if errors else batch.output_file_id
        if file is None:
            return None
        return await self.save(path_of("files", file, "content"), Path(target), otherwise=f"{file}.jsonl")

    async def _send(self, path: Path) -> str:
        with path.open("rb") as stream:
            form: Any = {"file": (path.name, Watched(stream, path.stat().st_size, None), "application/jsonl")}
            made = await self.gw.request("POST", "/files", data={"purpose": "batch"}, files=form)
        return str(made["id"])
