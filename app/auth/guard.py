"""Who is asking, and may they: one indexed query at most, one and the same 401 for every bad key."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import bindparam, select

from app.auth import recent, sessions
from app.auth.limiter import Limiter
from app.auth.secret import keyed_hash, parse
from app.auth.tables import ApiKey, Project
from app.db import now_ms
from app.errors import Forbidden, Unauthorized
from app.platform import Platform
from app.threads import in_thread

Scope = Literal["read", "write", "admin"]
_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="`Authorization: Bearer gw_…`")
_columns = (ApiKey.project_id, ApiKey.scopes, ApiKey.secret_hash, ApiKey.expires_ms, ApiKey.revoked_ms, Project.root)
_lookup = select(*_columns).join(Project, Project.id == ApiKey.project_id).where(ApiKey.id == bindparam("key_id"))
_NO_HASH = bytes(32)


@dataclass(frozen=True)
class Principal:
    """The key behind a request."""

    project_id: str
    key_id: str
    scopes: frozenset[str]
    root: bool = False


def authenticate(platform: Platform, headers: list[str]) -> Principal:
    """The principal of the request's Authorization headers; raises `Unauthorized` alike for whatever is wrong."""
    parsed = _parsed(headers)
    if parsed is None:
        raise Unauthorized
    key_id, secret = parsed
    row, alive = _found(platform, key_id)
    given = keyed_hash(secret, platform.settings.secret_key.get_secret_value())
    # An unknown id is compared too, so that the time taken tells nothing.
    good = hmac.compare_digest(given, row.secret_hash if row else _NO_HASH)
    if not good or not alive:
        raise Unauthorized
    return Principal(row.project_id, key_id, frozenset(row.scopes.split()), row.root)


def _parsed(headers: list[str]) -> tuple[str, str] | None:
    scheme, _, text = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    return parse(text.strip()) if scheme.lower() == "bearer" else None


def of_session(request: Request) -> Principal:
    """The principal of the dashboard's cookie; raises `Unauthorized`, `Forbidden` where the page is not ours."""
    platform: Platform = request.app.state.platform
    token = request.cookies.get(sessions.COOKIE)
    key_id = sessions.key_of(platform, token) if token else None
    if token is None or key_id is None:
        raise Unauthorized
    row, alive = _found(platform, key_id)
    if not alive:
        raise Unauthorized
    sessions.check_forgery(request, platform.settings, token)
    return Principal(row.project_id, key_id, frozenset(row.scopes.split()), row.root)


def _found(platform: Platform, key_id: str) -> tuple[Any, bool]:
    """The row of a key, if there is one, and whether it opens anything."""
    known = recent.recall(key_id)
    if known is not None:
        return known, True
    with platform.lookups.connect() as connection:
        row = connection.execute(_lookup, {"key_id": key_id}).one_or_none()
        if row is None or row.revoked_ms is not None:
            return row, False
        left = recent.SECONDS if row.expires_ms is None else (row.expires_ms - now_ms(connection)) / 1000
    if left > 0:
        recent.keep(key_id, row, left)
    return row, left > 0


async def principal(request: Request) -> Principal:
    """The request's principal, looked up once."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is None:
        headers = request.headers.getlist("authorization")
        asking = _recent(request, headers)
        if asking is None:
            asking = await in_thread(_admit, request, headers)
        request.state.principal = known = asking
    return known


def _recent(request: Request, headers: list[str]) -> Principal | None:
    """The principal where telling it needs no database and no broker, so that the event loop can do it itself."""
    parsed = _parsed(headers)
    if parsed is None or recent.recall(parsed[0]) is None:
        return None
    asking = authenticate(request.app.state.platform, headers)
    limiter: Limiter | None = request.app.state.limiter
    if limiter is not None:
        if not limiter.holds(asking.project_id):
            return None
        request.scope["reply_headers"] = limiter.take(asking.project_id)
    return asking


def _admit(request: Request, headers: list[str]) -> Principal:
    """Who asks, if the project has a request left; raises `Unauthorized`, `TooMany`."""
    asking = authenticate(request.app.state.platform, headers) if headers else of_session(request)
    limiter: Limiter | None = request.app.state.limiter
    if limiter is not None:
        request.scope["reply_headers"] = limiter.take(asking.project_id)
    return asking


def require(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """A dependency that lets in keys with this scope."""

    async def guard(request: Request, _: Annotated[object, Security(_bearer)]) -> Principal:
        asking = await principal(request)
        if scope not in asking.scopes:
            raise Forbidden("insufficient_scope", f"This needs a key with the scope `{scope}`.")
        return asking

    return guard
