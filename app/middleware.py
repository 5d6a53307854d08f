"""Around every request: an id, the Host check, one log line, the metrics, and the last net for faults."""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ApiError
from app.failures import internal_error, nothing_at, reply
from app.ids import new_id
from app.live import serve_live
from app.telemetry import observe, route_template
from ssl_core import tracing

log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,100}")
_HOST = re.compile(rb"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_QUIET = {"/healthz", "/readyz", "/metrics"}


class RequestEdge:
    """Pure ASGI, so that streams pass through untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or new_id("req")
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        seen: dict[str, Any] = {"status": 0}
        began = time.perf_counter()
        given = _given(scope, tracing.HEADER.encode())

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                more = [(b"x-request-id", request_id.encode()), *scope.get("reply_headers", ())]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            with _traced(scope, given, request_id) as span:
                await self._serve(scope, receive, tagged)
                await serve_live(scope, receive, tagged)
                _name(span, scope, seen["status"])
        except Exception:
            log.exception("request_failed", method=scope["method"], path=scope["path"][:300])
            if seen["status"]:
                raise  # the reply has begun: cutting the connection is all that is left
            await internal_error()(scope, receive, tagged)
        finally:
            for lift in scope.get("lift", ()):
                lift()
            _tell(scope, seen["status"], time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        missing = not hosts and scope["http_version"] != "1.0"
        if missing or len(hosts) > 1 or not all(_HOST.fullmatch(host) for host in hosts):
            wrong = ApiError("invalid_host", "A request needs exactly one valid Host header.", "Host")
            wrong.headers["Connection"] = "close"
            await reply(wrong)(scope, receive, send)
            return
        if "\0" in scope["path"]:
            # No id and no file is called so, and not every database can even be asked.
            await nothing_at(scope["method"], scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _given_id(scope: Scope) -> str | None:
    value = _given(scope, b"x-request-id")
    return value if value and _REQUEST_ID.fullmatch(value.encode("latin-1")) else None


def _given(scope: Scope, wanted: bytes) -> str | None:
    found = (value for name, value in scope["headers"] if name == wanted)
    value: bytes | None = next(found, None)
    return None if value is None else value.decode("latin-1")


def _traced(scope: Scope, parent: str | None, request_id: str) -> AbstractContextManager[Any]:
    """A span of the request. Workers ask all the time: of theirs only those that belong to an attempt's trace."""
    asked = scope["path"]
    if asked in _QUIET or (asked.startswith("/internal/") and parent is None):
        return nullcontext()
    return tracing.span(scope["method"], "server", parent, request_id=request_id)


def _name(span: Any, scope: Scope, status: int) -> None:
    """By the route's template, which is known once it was found, as the conventions for HTTP have it."""
    if span is None:
        return
    template = route_template(scope)
    span.update_name(f"{scope['method']} {template}")
    facts = {"http.request.method": scope["method"], "http.route": template, "http.response.status_code": status}
    span.set_attributes(facts)


def _tell(scope: Scope, status: int, seconds: float) -> None:
    template = route_template(scope)
    observe(scope["method"], template, status, seconds)
    if scope["path"] not in _QUIET:
        milliseconds = round(seconds * 1000, 1)
        log.info("request", method=scope["method"], route=template, status=status, milliseconds=milliseconds)
