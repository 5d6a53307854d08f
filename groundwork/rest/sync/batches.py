# Made from ../aio/batches.py by `python -m groundwork.rest.twin`; change that file, not this one.
"""`/v1/batches`: files of embedding or prediction requests, answered by a job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundwork.errors import WaitTimeout
from groundwork.rest.file_values import BatchFields
from groundwork.rest.names import path_of
from groundwork.rest.parts import Watched
from groundwork.rest.sync.resource import Resource
from groundwork.rest.sync.waiting import sleep
from groundwork.rest.values import Json

if TYPE_CHECKING:
    from groundwork.rest.sync.client import Client


class Batch(BatchFields):
    """A batch, and what can be done with it."""

    _gw: Client

    def __init__(self, raw: Json, gw: Client) -> None:
        super().__init__(raw)
        self.__dict__["_gw"] = gw

    def wait(self, *, timeout: float | None = None) -> Batch:
        """As `batches.wait`."""
        return self._gw.batches.wait(self.id, timeout=timeout)

    def cancel(self) -> Batch:
        """As `batches.cancel`."""
        return self._gw.batches.cancel(self.id)

    def download(self, target: Path | str, *, errors: bool = False) -> Path | None:
        """As `batches.download`."""
        return self._gw.batches.download(self.id, target, errors=errors)


class Batches(Resource):
    """The batches of the project."""

    def _made(self, raw: Json) -> Batch:
        return Batch(raw, self.gw)

    def create(self, file: Path | str, endpoint: str, *, metadata: dict[str, str] | None = None) -> Batch:
        """Answer every request of a file.

        Args:
            file: JSON lines `{"custom_id", "method": "POST", "url": endpoint, "body"}`, all of one model; or the id of
                such a file that the server has (`ds_…`).
            endpoint: `/v1/embeddings` or `/v1/predictions`.
        """
        known = str(file) if isinstance(file, str) and not Path(file).exists() and file.startswith("ds_") else None
        body: Json = {"input_file_id": known or self._send(Path(file)), "endpoint": endpoint}
        if metadata is not None:
            body["metadata"] = metadata
        return self._made(self.gw.request("POST", "/batches", json={**body, "completion_window": "24h"}))

    def get(self, id: str) -> Batch:
        """One batch."""
        return self._made(self.gw.request("GET", path_of("batches", id)))

    def list(self, *, limit: int | None = None) -> Iterator[Batch]:
        """Iterate over the batches, newest first."""
        return self.pages("/batches", self._made, limit)

    def cancel(self, id: str) -> Batch:
        """End it."""
        return self._made(self.gw.request("POST", path_of("batches", id, "cancel")))

    def wait(self, id: str, *, timeout: float | None = None, poll: float = 0.5) -> Batch:
        """The batch once it has ended, however that was; `status` tells. Raises WaitTimeout."""
        started, pause = time.monotonic(), poll
        while True:
            found = self.get(id)
            if found.ended:
                return found
            if timeout is not None and time.monotonic() - started > timeout:
                raise WaitTimeout(f"batch {id} is still {found.status} after {timeout:g} s")
            sleep(pause)
            pause = min(pause * 1.2, max(2.0, poll))

    def download(self, id: str, target: Path | str, *, errors: bool = False) -> Path | None:
        """Its answers, or with `errors` the requests that have none, as JSON lines; None where there are none."""
        batch = self.get(id)
        file = batch.error_file_id if errors else batch.output_file_id
        if file is None:
            return None
        return self.save(path_of("files", file, "content"), Path(target), otherwise=f"{file}.jsonl")

    def _send(self, path: Path) -> str:
        with path.open("rb") as stream:
            form: Any = {"file": (path.name, Watched(stream, path.stat().st_size, None), "application/jsonl")}
            made = self.gw.request("POST", "/files", data={"purpose": "batch"}, files=form)
        return str(made["id"])
