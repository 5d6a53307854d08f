"""The edge of every `/v1` route: strict JSON, acceptable types, known query names, and replies kept for retries."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.params import Form
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.routing import Match
from starlette.types import Scope

from app.auth.audit import action_of, enter
from app.auth.guard import principal
from app.db import commit
from app.deps import Handler, ending_sessions
from app.errors import Unprocessable
from app.idempotency import Repeatable, in_flight, keep, kept, key_of, replay
from app.platform import Platform, session_scope
from app.protocol import check_accept, read_json
from app.responses import ERRORS
from app.threads import in_thread

Digest = Callable[[Request], Coroutine[Any, Any, bytes]]
_LIMIT = "max_body_bytes"
_DIGEST = "digest_of_body"
_CHANGES_NOTHING = "changes_nothing"
_METADATA = "metadata"
F = TypeVar("F", bound=Callable[..., Any])


def api_router(tag: str, prefix: str = "/v1") -> APIRouter:
    """The router of a domain: `router = api_router("jobs")`; its routes are served below `/v1`."""
    return _Tagged(tag, prefix)


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add a router's routes to the application as they are.

    `FastAPI.include_router` would keep it as a tree, which is searched twice at every level for every request.
    """
    app.router.routes.extend(router.routes)


class _Tagged(APIRouter):
    """Tags its routes one by one: a router's own tags would be added to those of the routers it includes."""

    def __init__(self, tag: str, prefix: str) -> None:
        super().__init__(prefix=prefix, route_class=EdgeRoute, responses=ERRORS)
        self._tag = tag

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route under this router's tag."""
        options["tags"] = [*(options.get("tags") or []), self._tag]
        super().add_api_route(path, endpoint, **options)

    def include_router(self, router: APIRouter, **options: Any) -> None:
        """Add another such router's routes, under the path and the tag that they have."""
        if options:
            raise TypeError(f"routes are taken as they are, without {', '.join(options)}")
        self.routes.extend(router.routes)


def body_limit(size: int) -> Callable[[F], F]:
    """Mark a route (below its path decorator) whose JSON body may have `size` bytes, other than all others."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _LIMIT, size)
        return endpoint

    return mark


def changes_nothing(endpoint: F) -> F:
    """Mark a POST (below its path decorator) that only computes an answer.

    No reply is kept for its `Idempotency-Key`: asking again gives the same, and vectors kept for a day fill a database.
    """
    setattr(endpoint, _CHANGES_NOTHING, True)
    return endpoint


def takes_metadata(endpoint: F) -> F:
    """Mark a route (below its path decorator) that filters by `metadata[key]=value`, names no signature can list."""
    setattr(endpoint, _METADATA, True)
    return endpoint


def streamed(digest: Digest) -> Callable[[F], F]:
    """Mark a route (below its path decorator) that reads its own body as it comes.

    It tells what it read with `body_was`; `digest` reads a repeated body to the same end, and does nothing else.
    """

    def mark(endpoint: F) -> F:
        setattr(endpoint, _DIGEST, digest)
        return endpoint

    return mark


def body_was(request: Request, digest: bytes) -> None:
    """What a streamed body was, so that the kept reply is for this body and no other."""
    asked: Repeatable | None = getattr(request.state, "repeatable", None)
    if asked is not None:
        request.state.repeatable = asked.with_body(digest)


class EdgeRoute(APIRoute):
    """Checks what comes before a handler, and keeps the reply of a POST that carries a key."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._stem = path.partition("{")[0]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the path and the method are this route's; most paths differ before their first parameter."""
        if not scope.get("root_path") and not scope["path"].startswith(self._stem):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Handler:
        """The handler, wrapped; the request's session is committed after it."""
        call = self.dependant.call
        if call is not None and not iscoroutinefunction(call):
            # Nothing is written after a worker's call: no reply is kept for a key, no action entered.
            self.dependant.call = _hopping(_committed(call) if self.path.startswith("/internal/") else call)
        handle = super().get_route_handler()
        produced = _produced(self)
        names = {field.alias for field in self.dependant.query_params} | _query_names(self.dependant)
        names |= {"metadata[key]"} if getattr(self.endpoint, _METADATA, False) else set()
        wants_json = self.body_field is not None and not isinstance(self.body_field.field_info, Form)
        required = wants_json and self.body_field is not None and self.body_field.field_info.is_required()
        limit: int | None = getattr(self.endpoint, _LIMIT, None)
        digest: Digest | None = getattr(self.endpoint, _DIGEST, None)
        plain, action, keyed = handle, action_of(self.endpoint), self.path.startswith("/v1/")
        repeats = not getattr(self.endpoint, _CHANGES_NOTHING, False)

        async def entered(request: Request) -> Response:
            response = await plain(request)
            if action is not None and 200 <= response.status_code < 300:
                asking = await principal(request)
                await in_thread(enter, request.state.session, request, asking, action, response)
            return response

        handle = entered

        async def guarded(request: Request) -> Response:
            if produced:
                check_accept(request, produced)
            _check_query(request, names)
            body = b""
            if wants_json:
                if keyed:
                    await principal(request)  # no stranger makes us hold a body, or read it
                body = await _parse(request, required, limit)
            asked = await _repeatable(request, body) if request.method == "POST" and repeats else None
            return await handle(request) if asked is None else await _once(request, asked, handle, digest)

        return ending_sessions(guarded)


def _hopping(call: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function as a coroutine function that runs it in a thread. What it takes was read before."""

    async def hop(**arguments: Any) -> Any:
        return await in_thread(call, **arguments)

    return hop


def _committed(call: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function that commits the session it was given: another hop for the commit costs as much as the work."""

    def work(**arguments: Any) -> Any:
        found = call(**arguments)
        for each in arguments.values():
            if isinstance(each, Session):
                commit(each)
        return found

    return work


async def _parse(request: Request, required: bool, limit: int | None) -> bytes:
    if limit is None:
        limit = request.app.state.platform.settings.max_body_bytes
    if required or request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        raw, value = await read_json(request, limit, required)
    else:
        raw, value = b"", None
    # What the framework reads next: the body as bytes, and as the value that was parsed strictly.
    request._body = raw
    request._json = value
    request.state.body = value
    return raw


async def _repeatable(request: Request, body: bytes) -> Repeatable | None:
    key = key_of(request)
    if key is None or not request.url.path.startswith("/v1/"):
        return None
    asking = await principal(request)
    plain = Repeatable(asking.project_id, request.url.path, key, "")
    # What no JSON reader has read is either empty or a stream, whose own digest comes later.
    return plain.with_body(body or request.headers.get("content-length", "").encode())


async def _once(request: Request, asked: Repeatable, handle: Handler, digest: Digest | None) -> Response:
    platform: Platform = request.app.state.platform
    flying: set[tuple[str, str, str]] = request.app.state.in_flight
    mark = (asked.project_id, asked.path, asked.key)
    if mark in flying:
        raise in_flight()
    flying.add(mark)
    # The mark is lifted when the request ends, after its commit (app/middleware.py).
    request.scope.setdefault("lift", []).append(lambda: flying.discard(mark))
    known = await in_thread(kept, platform, asked)
    if known is not None:
        return replay(known, asked if digest is None else asked.with_body(await digest(request)))
    request.state.repeatable = asked
    response = await handle(request)
    if 200 <= response.status_code < 300 and not getattr(request.state, "reply_kept", False):
        session: Session | None = getattr(request.state, "session", None)
        reply = getattr(request.state, "reply_without_secret", None) or bytes(response.body)
        await in_thread(_keep, platform, session, request.state.repeatable, reply, response.status_code)
    return response


def _keep(platform: Platform, session: Session | None, asked: Repeatable, reply: bytes, status: int) -> None:
    if session is not None:
        _keep_in(session, asked, reply, status)
        return
    with session_scope(platform) as own:
        _keep_in(own, asked, reply, status)


def _keep_in(session: Session, asked: Repeatable, reply: bytes, status: int) -> None:
    session.flush()  # a conflict of the work itself is not one of the key
    try:
        keep(session, asked, status, reply)
        session.flush()
    except IntegrityError:
        raise in_flight() from None


def kept_reply(request: Request, session: Session, status: int, content: Any) -> JSONResponse:
    """The reply of an async route that ends its own session: kept in that same transaction when a key was sent."""
    response = JSONResponse(content, status)
    asked: Repeatable | None = getattr(request.state, "repeatable", None)
    if asked is not None:
        _keep_in(session, asked, bytes(response.body), status)
        request.state.reply_kept = True
    return response


def keep_without_secret(request: Request, shape: BaseModel) -> None:
    """Keep this for a replay instead of the reply, whose secret is shown once and stored nowhere (R23)."""
    request.state.reply_without_secret = shape.model_dump_json().encode()


def resent(request: Request) -> bool:
    """Whether an official client sends this request again on its own (`x-stainless-retry-count` above 0)."""
    count = request.headers.get("x-stainless-retry-count", "0")
    return count.isascii() and count.isdigit() and int(count[:4]) > 0


def _check_query(request: Request, names: set[str]) -> None:
    for name, value in request.query_params.multi_items():
        if "\0" in value:
            raise Unprocessable("invalid_character", f"`{name[:80]}` holds a NUL character.", name[:80])
        filters = name.startswith("metadata") and "metadata[key]" in names  # its reader says what is wrong with one
        if name not in names and not filters:
            allowed = f"allowed are {', '.join(sorted(names))}" if names else "this route takes none"
            message = f"The query parameter {name[:80]!r} is not known; {allowed}."
            raise Unprocessable("unknown_field", message, name[:80])


def _query_names(dependant: Any) -> set[str]:
    names: set[str] = set()
    for inner in dependant.dependencies:
        names |= {field.alias for field in inner.query_params} | _query_names(inner)
    return names


def _produced(route: APIRoute) -> set[str]:
    """Media types a route answers with; empty when its replies are not JSON and it sees to Accept itself."""
    kind = route.response_class.value if isinstance(route.response_class, DefaultPlaceholder) else route.response_class
    if not issubclass(kind, JSONResponse):
        return set()
    declared = {media for reply in route.responses.values() for media in reply.get("content", {})}
    return {"application/json"} | declared


def canonical(value: Any) -> bytes:
    """A JSON value's bytes, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
