"""Requests with retries: one idempotency key for every POST, waits as the server asks, errors with its words."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict, Unpack

import httpx2

from groundwork.errors import APIStatusError, ConnectionFailed, NotFound
from groundwork.rest.aio.waiting import sleep
from groundwork.rest.retries import Retries
from groundwork.rest.values import Json


class Sent(TypedDict, total=False):
    """What a request may carry."""

    params: Mapping[str, Any]
    json: Any
    data: Mapping[str, Any]
    files: Mapping[str, Any]
    headers: Mapping[str, str]
    timeout: float | httpx2.Timeout


class AsyncTransport:
    """The connections to one server. Closed by `aclose`."""

    def __init__(self, url: str, headers: dict[str, str], timeout: float, retries: Retries) -> None:
        self.url, self.retries = url, retries
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=timeout)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def request(self, method: str, path: str, **sent: Unpack[Sent]) -> Any:
        """The JSON of the answer to a request of `/v1<path>`, None where it has no body.

        Raises:
            APIStatusError: the server refused it.
            ConnectionFailed: there was no answer after every retry.
        """
        answer = await self.respond(method, path, **sent)
        return content_of(answer)

    async def delete(self, path: str) -> Json:
        """Delete it. Where the answer to a first try was lost, a 404 to the next is that of a thing deleted."""
        try:
            gone: Json = await self.request("DELETE", path)
        except NotFound as error:
            if not error.repeated:
                raise
            gone = {"deleted": True}
        return gone

    async def respond(self, method: str, path: str, **sent: Unpack[Sent]) -> httpx2.Response:
        """The whole answer. Raises as `request`."""
        return await self._send(method, path, False, sent)

    @asynccontextmanager
    async def open(self, path: str, **sent: Unpack[Sent]) -> AsyncIterator[httpx2.Response]:
        """The answer to a GET, its body not yet read.

        Raises:
            httpx2.TransportError: it broke off while it was read; the caller goes on from there.
            APIStatusError, ConnectionFailed: as `request`.
        """
        answer = await self._send("GET", path, True, sent)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _send(self, method: str, path: str, stream: bool, sent: Sent) -> httpx2.Response:
        headers = {**sent.get("headers", {})}
        if method == "POST":
            headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        tries, lost = 0, False
        while True:
            tries += 1
            answer, broken = await self._try(method, path, stream, {**sent, "headers": headers})
            if answer is not None and _fine(answer):
                return answer
            pause = self.retries.wait(tries, answer)
            if pause is None:
                raise _failure(answer, lost) if answer is not None else self._unreached(method, path, broken)
            lost = lost or answer is None
            await sleep(pause)

    async def _try(
        self, method: str, path: str, stream: bool, sent: Sent
    ) -> tuple[httpx2.Response | None, httpx2.TransportError | None]:
        """One try: an answer, read to its end where it is an error, or why there is none."""
        try:
            request = self._http.build_request(method, f"v1{path}", **sent)
            answer = await self._http.send(request, stream=stream)
            if stream and not _fine(answer):
                await answer.aread()
        except httpx2.TransportError as error:
            return None, error
        return answer, None

    def _unreached(self, method: str, path: str, error: Exception | None) -> ConnectionFailed:
        """The words for no answer."""
        told = str(error) or type(error).__name__
        return ConnectionFailed(f"no answer from {self.url} to {method} /v1{path}: {told}")


def content_of(answer: httpx2.Response) -> Any:
    """The JSON of an answer, None where it has no body. Raises APIStatusError where it has another one."""
    try:
        return answer.json() if answer.content else None
    except ValueError:
        told = f"what answers at {answer.url} is no JSON, so no Groundwork: {answer.text[:100]}"
        raise APIStatusError(answer.status_code, {"message": told}) from None


def _fine(answer: httpx2.Response) -> bool:
    """Redirections are none of the API's; following one would hand the key to another server."""
    return answer.is_success or answer.status_code == 304


def _failure(answer: httpx2.Response, lost: bool) -> APIStatusError:
    error = APIStatusError.of(answer)
    error.repeated = lost
    return error
