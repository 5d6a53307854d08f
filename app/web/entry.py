"""The door: signing in with a key, signing out, and the files that pages load."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from app.auth import sessions
from app.auth.guard import authenticate
from app.deps import PlatformDep
from app.errors import Forbidden, TooLarge, Unauthorized
from app.platform import Platform, session_scope
from app.web import assets
from app.web.edge import HOME, LOGIN, LOGIN_COOKIE, MAX_FORM_BYTES, login_page, own_path, page_router, set_cookie

router = page_router()
Onward = Annotated[str, Query(alias="next", max_length=2000)]


@router.get("/static/{name:path}")
async def static(name: str, request: Request) -> Response:
    """A script, a style or a picture of the dashboard; no session needed."""
    return assets.answer(request, name)


@router.get("/login")
async def login(request: Request, onward: Onward = HOME) -> Response:
    """The form."""
    return login_page(request, own_path(onward))


@router.post("/login")
async def sign_in(request: Request, platform: PlatformDep) -> Response:
    """Exchange a key for a session's cookie; a wrong key shows the form again, with nothing of the key in it."""
    form = await _form(request)
    onward = own_path(form.get("next", HOME))
    nonce = request.cookies.get(LOGIN_COOKIE, "")
    wanted = sessions.forgery_token(platform.settings, f"login {nonce}")
    if not nonce or not sessions.same(form.get("csrf", ""), wanted) or not _from_here(request):
        return login_page(request, onward, "This page was open for too long. Please try once more.", 403)
    try:
        token = await run_in_threadpool(_begin, platform, form.get("key", "").strip())
    except Unauthorized:
        return login_page(request, onward, "This key is not valid here: it may be mistyped, expired or revoked.", 401)
    response = RedirectResponse(onward, 303)
    set_cookie(request, response, sessions.COOKIE, token, sessions.LIFETIME_SECONDS)
    response.delete_cookie(LOGIN_COOKIE, path="/")
    return response


@router.post("/logout")
async def sign_out(request: Request, platform: PlatformDep) -> Response:
    """End the session on this side too: a copy of the cookie opens nothing afterwards."""
    form, token = await _form(request), request.cookies.get(sessions.COOKIE, "")
    wanted = sessions.forgery_token(platform.settings, token)
    if not sessions.same(form.get("csrf", ""), wanted) or not _from_here(request):
        raise Forbidden("csrf_failed", "Please sign out with the button of the dashboard.")
    await run_in_threadpool(_end, platform, token)
    response = RedirectResponse(LOGIN, 303)
    response.delete_cookie(sessions.COOKIE, path="/")
    return response


def _begin(platform: Platform, key: str) -> str:
    asking = authenticate(platform, [f"Bearer {key}"])
    with session_scope(platform) as session:
        return sessions.begin(session, platform.settings, asking.key_id)


def _end(platform: Platform, token: str) -> None:
    with session_scope(platform) as session:
        sessions.end(session, platform.settings, token)


def _from_here(request: Request) -> bool:
    return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise TooLarge("too_large", f"A form has at most {MAX_FORM_BYTES} bytes.")
    sent = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in sent.items()}
