"""Every failure the application can see, rendered once, in the one envelope (R31)."""

from __future__ import annotations

from typing import cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.errors import ApiError, InsufficientStorage, Unavailable, Unprocessable
from app.telemetry import route_template
from app.threads import in_thread
from app.validation import refusal
from ssl_core.errors import EngineError
from ssl_core.hangups import Gone
from ssl_core.redaction import redacted

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """One renderer for each family of failures."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _router_error)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(PoolTimeout, _database_error)
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Gone, _gone)


def reply(error: ApiError) -> JSONResponse:
    """The envelope as a reply."""
    return JSONResponse(error.body(), error.status, headers=error.headers)


def internal_error() -> JSONResponse:
    """What a caller learns of a fault of ours: nothing but where to find it."""
    message = "The server failed; the fault is logged under this reply's x-request-id."
    return _plain(500, "internal_error", message, "server_error")


def nothing_at(method: str, path: str) -> JSONResponse:
    """A path that no route serves."""
    return _plain(404, "not_found", redacted(f"There is nothing at {method} {path[:200]}."), "invalid_request_error")


def _plain(status: int, code: str, message: str, type: str, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {"error": {"message": message, "type": type, "param": None, "code": code}}
    return JSONResponse(body, status, headers=headers)


async def _api_error(_request: Request, error: Exception) -> Response:
    return reply(cast(ApiError, error))


async def _invalid(request: Request, error: Exception) -> Response:
    found = cast(RequestValidationError, error)
    return reply(refusal(found.errors(), getattr(request.state, "body", None)))


async def _engine_error(_request: Request, error: Exception) -> Response:
    found = cast(EngineError, error)
    return reply(Unprocessable(found.code, found.message, found.param))


async def _router_error(request: Request, error: Exception) -> Response:
    found = cast(HTTPException, error)
    headers = dict(found.headers or {})
    match found.status_code:
        case 404:
            return nothing_at(request.method, request.url.path)
        case 405:
            allowed = await _allowed(request) or headers.get("Allow", "another method")
            headers["Allow"] = allowed
            message = f"{request.method} is not allowed here; use {allowed}."
            return _plain(405, "method_not_allowed", message, "invalid_request_error", headers)
        case status if status < 500:
            return _plain(status, "bad_request", str(found.detail), "invalid_request_error", headers)
        case status:
            return _plain(status, "internal_error", str(found.detail), "server_error", headers)


async def _allowed(request: Request) -> str:
    """Every method of the path; the router itself names those of the first route that matches."""
    document = await in_thread(request.app.openapi)
    methods = document["paths"].get(route_template(request.scope), {})
    return ", ".join(sorted(method.upper() for method in methods))


async def _database_error(_request: Request, error: Exception) -> Response:
    """Down, overloaded or locked: try again. A statement that can never work is a fault of ours."""
    if isinstance(error, OperationalError) and "disk is full" in str(error.orig):
        return reply(InsufficientStorage("disk_full", "The database has no room left."))
    passing = isinstance(error, OperationalError | PoolTimeout) or getattr(error, "connection_invalidated", False)
    if not passing:
        log.error("database_error", exc_info=error)
        return internal_error()
    log.warning("database_unavailable", error=type(error).__name__, detail=str(getattr(error, "orig", error))[:300])
    return reply(Unavailable("database_unavailable", "The database cannot be reached just now."))


async def _gone(_request: Request, _error: Exception) -> Response:
    # Nobody reads this; it keeps a cut connection out of the log of faults.
    return _plain(400, "client_disconnected", "The client went away.", "invalid_request_error")
