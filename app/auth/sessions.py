"""Sessions of the dashboard: a key is exchanged for an opaque cookie, of which the database keeps a keyed hash.

A session opens what its key opens and ends when the key does, when its time is over, or at a logout. Requests that
change something must carry the session's token against forgery besides the cookie, which browsers send on their own.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from fastapi import Request
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from app.auth.tables import WebSession
from app.db import now_ms
from app.errors import Forbidden
from app.platform import Platform
from app.settings import Settings

COOKIE = "gw_session"
HEADER = "x-csrf-token"
LIFETIME_SECONDS = 12 * 3600
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})
_lookup = select(WebSession.key_id, WebSession.expires_ms).where(WebSession.id == bindparam("id"))


def begin(session: Session, settings: Settings, key_id: str) -> str:
    """A new session of this key; returns the cookie's value, which is kept nowhere. Those that ended go on the way."""
    now, token = now_ms(session), secrets.token_urlsafe(32)
    session.execute(delete(WebSession).where(WebSession.expires_ms <= now))
    expires = now + LIFETIME_SECONDS * 1000
    session.add(WebSession(id=_row_id(settings, token), key_id=key_id, created_ms=now, expires_ms=expires))
    session.flush()
    return token


def end(session: Session, settings: Settings, token: str) -> None:
    """The cookie opens nothing from now on; again is a no-op."""
    session.execute(delete(WebSession).where(WebSession.id == _row_id(settings, token)))


def key_of(platform: Platform, token: str) -> str | None:
    """The id of the key behind a cookie; None where the session is unknown or over."""
    with platform.lookups.connect() as connection:
        row = connection.execute(_lookup, {"id": _row_id(platform.settings, token)}).one_or_none()
        return None if row is None or row.expires_ms <= now_ms(connection) else str(row.key_id)


def forgery_token(settings: Settings, token: str) -> str:
    """What a page of this session sends along to show that it is ours: no other origin can read it."""
    return _keyed(settings, f"csrf {token}").hex()


def check_forgery(request: Request, settings: Settings, token: str) -> None:
    """Raises Forbidden `csrf_failed` for a request that another site may have set off."""
    ours = request.headers.get("sec-fetch-site", "none") in _OWN
    if request.method in SAFE:
        # Whoever follows a link to a page sees that page; no other site may load anything into its own.
        good = ours or request.headers.get("sec-fetch-dest") == "document"
    else:
        good = ours and same(request.headers.get(HEADER, ""), forgery_token(settings, token))
    if not good:
        words = f"A request with a session's cookie that changes something needs its `{HEADER}` header."
        raise Forbidden("csrf_failed", words, HEADER)


def same(given: str, wanted: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def _row_id(settings: Settings, token: str) -> str:
    return _keyed(settings, f"session {token}").hex()


def _keyed(settings: Settings, text: str) -> bytes:
    return hmac.digest(settings.secret_key.get_secret_value().encode(), text.encode(), hashlib.sha256)
