# Made from ../aio/client.py by `python -m groundwork.rest.twin`; change that file, not this one.
"""The whole client: one object for one server and one key."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Unpack

from groundwork.rest.config import address, agent
from groundwork.rest.retries import Retries
from groundwork.rest.sync.account import Catalogue, Keys, Projects, Webhooks
from groundwork.rest.sync.batches import Batches
from groundwork.rest.sync.datasets import Datasets
from groundwork.rest.sync.jobs import Jobs
from groundwork.rest.sync.models import Models
from groundwork.rest.sync.transport import Sent, Transport
from groundwork.rest.sync.uploads import Uploads
from groundwork.rest.values import Json, Rows, Vectors


class Client:
    """A server, seen through one API key. Use it in `with`, or call `close` at the end.

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
        self.transport = Transport(url, headers, timeout, policy)
        self.datasets = Datasets(self)
        self.uploads = Uploads(self)
        self.jobs = Jobs(self)
        self.models = Models(self)
        self.batches = Batches(self)
        self.catalogue = Catalogue(self)
        self.keys = Keys(self)
        self.projects = Projects(self)
        self.webhooks = Webhooks(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.transport.close()

    def request(self, method: str, path: str, **sent: Unpack[Sent]) -> Any:
        """The JSON of the answer to any request of `/v1<path>`, with the same retries and errors.

        Raises:
            APIStatusError: the server refused it.
            ConnectionFailed: there was no answer after every retry.
        """
        return self.transport.request(method, path, **sent)

    def embed(
        self, model: str, input: Any, *, dimensions: int | None = None, pooling: str | None = None
    ) -> Vectors:
        """As `models.embed`."""
        return self.models.embed(model, input, dimensions=dimensions, pooling=pooling)

    def predict(self, model: str, input: Any, *, sampling: Json | None = None, seed: int = 0) -> Rows:
        """As `models.predict`."""
        return self.models.predict(model, input, sampling=sampling, seed=seed)
