"""The way to the inference role: one pooled client for the process, and its answers in our words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import structlog
from fastapi import FastAPI
from pydantic_core import from_json

from app.errors import NotFound, TooLarge, Unavailable, Unprocessable
from app.inference.together import Together
from app.settings import Settings
from ssl_core import tracing

log = structlog.get_logger(__name__)
_TIMEOUT = httpx.Timeout(300, connect=2, pool=10)  # a full batch on two cores may take minutes
_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=64)


class InferenceClient:
    """Posts to `GROUNDWORK_INFERENCE_URL`."""

    def __init__(self, settings: Settings) -> None:
        token = settings.worker_token.get_secret_value()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._http = httpx.AsyncClient(
            base_url=settings.inference_url, headers=headers, timeout=_TIMEOUT, limits=_LIMITS, trust_env=False
        )
        self._together = Together(self._post_many)

    async def post(self, path: str, body: bytes) -> dict[str, Any]:
        """The reply's JSON.

        Raises:
            Unavailable: 503, the role is down, full or broken.
            Unprocessable, NotFound, TooLarge: what it says of the caller's input.
        """
        reply = await self._send(path, body)
        if reply.status_code == 200:
            answer: dict[str, Any] = from_json(reply.content)
            return answer
        raise _refusal(reply.status_code, _json(reply), reply.headers.get("retry-after", "1"))

    async def embed(self, model: str, body: bytes) -> dict[str, Any]:
        """The reply to a small request for vectors, which shares its way with those of others. Raises as `post`."""
        reply = await self._together.ask(model, body)
        if reply["status"] == 200:
            return reply
        raise _refusal(reply["status"], reply, reply.get("retry", "1"))

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._http.aclose()

    async def _post_many(self, bodies: list[bytes]) -> list[dict[str, Any]]:
        if len(bodies) == 1:
            reply = await self._send("/embed", bodies[0])
            retry = {} if reply.status_code == 200 else {"retry": reply.headers.get("retry-after", "1")}
            return [{**_json(reply), **retry, "status": reply.status_code}]
        found = await self.post("/embed_many", b'{"requests":[%b]}' % b",".join(bodies))
        replies: list[dict[str, Any]] = found["replies"]
        return replies

    async def _send(self, path: str, body: bytes) -> httpx.Response:
        try:
            return await self._once(path, body)
        except httpx.TimeoutException as error:
            words = "The model took too long to answer; send less at once."
            raise Unavailable("inference_timeout", words, 5) from error
        except httpx.HTTPError as error:
            raise Unavailable("inference_unavailable", "The inference process cannot be reached just now.") from error

    async def _once(self, path: str, body: bytes) -> httpx.Response:
        headers = tracing.headers()
        try:
            return await self._http.post(path, content=body, headers=headers)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            # A kept connection that a restarted process no longer knows; computing twice does no harm.
            return await self._http.post(path, content=body, headers=headers)


def client_of(app: FastAPI) -> InferenceClient:
    """The process's client, made at its first use on the event loop."""
    known: InferenceClient | None = getattr(app.state, "inference", None)
    if known is None:
        known = app.state.inference = InferenceClient(app.state.platform.settings)
    return known


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Closes the client with the process."""
    yield
    known: InferenceClient | None = getattr(app.state, "inference", None)
    if known is not None:
        await known.close()


def _json(reply: httpx.Response) -> dict[str, Any]:
    """Empty where it is none."""
    try:
        found = from_json(reply.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(status: int, body: dict[str, Any], retry: str = "1") -> Exception:
    try:
        error = body["error"]
        code, message, param = str(error["code"]), str(error["message"]), error["param"]
    except (KeyError, TypeError):
        code, message, param = "inference_failed", "The inference process gave no readable answer.", None
    match status:
        case 404:
            return NotFound("model", "", "model") if param != "model" else _gone(message)
        case 413:
            return TooLarge(code, message, param)
        case 422:
            return Unprocessable(code, message, param)
        case 503:
            return Unavailable(code, message, int(retry) if retry.isdigit() else 1)
    log.error("inference_refused", status=status, code=code, message=message)
    return Unavailable("inference_failed", "The inference process failed at this request.", 5)


def _gone(message: str) -> NotFound:
    gone = NotFound("model", "", "model")
    gone.message = message
    return gone
