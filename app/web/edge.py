"""The edge of every page: its headers, its errors as pages, and the one way to render."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Select
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.auth import sessions
from app.deps import ending_sessions
from app.errors import ApiError, Unauthorized, Unavailable
from app.pagination import Page, paginate
from app.settings import Settings
from app.validation import refusal
from app.web import formats
from app.web.assets import version

log = structlog.get_logger(__name__)
HOME = "/ui"
LOGIN = f"{HOME}/login"
LOGIN_COOKIE = "gw_login"
THEME_COOKIE = "gw_theme"
MAX_FORM_BYTES = 16_384
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """Gives every page its headers, and answers what goes wrong with a page, or with the way to the login."""

    def get_route_handler(self) -> Handler:
        """The handler, wrapped."""
        handle = ending_sessions(super().get_route_handler())

        async def guarded(request: Request) -> Response:
            try:
                response = await handle(request)
            except Unauthorized:
                response = _to_login(request)
            except (ApiError, RequestValidationError, OperationalError, PoolTimeout) as error:
                response = error_page(request, _told(error))
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return guarded


def page_router() -> APIRouter:
    """A router whose routes are pages: below `/ui`, in no OpenAPI document."""
    return APIRouter(prefix=HOME, route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


def page(request: Request, template: str, http_status: int = 200, **values: Any) -> HTMLResponse:
    """A rendered template. Whatever it is given is escaped."""
    token = request.cookies.get(sessions.COOKIE)
    settings: Settings = request.app.state.platform.settings
    theme = request.cookies.get(THEME_COOKIE, "")
    known = {
        "csrf": sessions.forgery_token(settings, token) if token else "",
        "theme": theme if theme in ("light", "dark") else "",
        "version": version(),
        "path": request.url.path,
        "origin": str(request.base_url).rstrip("/"),
        "principal": getattr(request.state, "principal", None),
    }
    return HTMLResponse(_environment().get_template(template).render(known | values), http_status)


def error_page(request: Request, error: ApiError) -> Response:
    """What went wrong, in the same words as the API's envelope."""
    return page(request, "error.html", error.status, error=error, title=f"Error {error.status}")


def listed(session: Session, query: Select[Any], page: Page, render: Callable[[Any], Any]) -> dict[str, Any]:
    """One page of a service's query, as the API's lists give it."""
    return paginate(session, query, query.column_descriptions[0]["entity"], page, render)


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """For scripts unreadable, for other sites unusable, and over TLS only where the page came so."""
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="strict")


def login_page(request: Request, onward: str, problem: str = "", status: int = 200) -> Response:
    """The form; its hidden token belongs to a cookie of its own, for there is no session yet."""
    nonce = request.cookies.get(LOGIN_COOKIE) or secrets.token_urlsafe(24)
    token = sessions.forgery_token(request.app.state.platform.settings, f"login {nonce}")
    response = page(request, "login.html", status, token=token, onward=onward, problem=problem, title="Sign in")
    set_cookie(request, response, LOGIN_COOKIE, nonce, 3600)
    return response


def own_path(asked: str) -> str:
    """Where to go on: a page of ours, whatever was asked for."""
    inside = asked == HOME or asked.startswith((f"{HOME}/", f"{HOME}?"))
    return asked if inside and "\\" not in asked and asked.isprintable() else HOME


def _to_login(request: Request) -> Response:
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    onward = f"?next={quote(asked, safe='')}" if asked != HOME and request.method == "GET" else ""
    return RedirectResponse(LOGIN + onward, 303)


def _told(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return refusal(error.errors(), None)
    log.warning("database_unavailable", error=type(error).__name__)
    return Unavailable("database_unavailable", "The database cannot be reached just now; try again in a moment.")


@cache
def _environment() -> Environment:
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    names = ("ago", "duration", "size", "number", "percent", "pretty", "label")
    made.filters |= {name: getattr(formats, name) for name in names}
    made.globals["parts"] = made.get_template("parts.html").module
    return made
