"""The whole client: one object for one server and one key."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Unpack

from groundwork.rest.aio.account import AsyncCatalogue, AsyncKeys, AsyncProjects, AsyncWebhooks
from groundwork.rest.aio.batches import AsyncBatches
from groundwork.rest.aio.datasets import AsyncDatasets
from groundwork.rest.aio.jobs import AsyncJobs
from groundwork.rest.aio.models import AsyncModels
from groundwork.rest.aio.transport import AsyncTransport, Sent
from groundwork.rest.aio.uploads import AsyncUploads
from groundwork.rest.config import address, agent
from groundwork.rest.retries import Retries
from groundwork.rest.values import Json, Rows, Vectors


class AsyncClient:
    """A server, seen through one API key. Use it in `async with`, or call `aclose` at the end.

    Args:
        base_url: such as `http://127.0.0.1:8420`; default: the environment's `GROUNDWORK_URL`.
        api_key: `gw_…`; default: the environment's `GROUNDWORK_API_KEY`.
        timeout: seconds to connect, and between two pieces of an answer.
        retries: more tries of a request that got no answer, or 408, 429, 502, 503 or 504; each POST under one
            `Idempotency-Key`, so that whatever it does is done once.

    Raises:
        NotConfigured: no address or no key, or one that cannot be one.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int | Retries = 6,
    ) -> None:
        url, key = address(base_url, api_key)
        policy = retries if isinstance(retries, Retries) else Retries(retries)
        headers = {"Authorization": f"Bearer {key}", "User-Agent": agent()}
        self.transport = AsyncTransport(url, headers, timeout, policy)
        self.datasets = AsyncDatasets(self)
        self.uploads = AsyncUploads(self)
        self.jobs = AsyncJobs(self)
        self.models = AsyncModels(self)
        self.batches = AsyncBatches(self)
        self.catalogue = AsyncCatalogue(self)
        self.keys = AsyncKeys(self)
        self.projects = AsyncProjects(self)
        self.webhooks = AsyncWebhooks(self)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self.transport.aclose()

    async def request(self, method: str, path: str, **sent: Unpack[Sent]) -> Any:
        """The JSON of the answer to any request of `/v1<path>`, with the same retries and errors.

        Raises:
            APIStatusError: the server refused it.
            ConnectionFailed: there was no answer after every retry.
        """
        return await self.transport.request(method, path, **sent)

    async def embed(
        self, model: str, input: Any, *, dimensions: int | None = None, pooling: str | None = None
    ) -> Vectors:
        """As `models.embed`."""
        return await self.models.embed(model, input, dimensions=dimensions, pooling=pooling)

    async def predict(self, model: str, input: Any, *, sampling: Json | None = None, seed: int = 0) -> Rows:
        """As `models.predict`."""
        return await self.models.predict(model, input, sampling=sampling, seed=seed)
