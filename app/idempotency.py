"""`Idempotency-Key`: a POST that is sent again gets the reply of the first, byte for byte (B15, F1).

The kept reply is written in the same transaction as what the request did. So there is no moment at which the work is
committed and its reply is not, and a crash leaves nothing to unlock. Two copies in flight at once are told apart in
the process by a set, across processes by the primary key: the second commit fails as a whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastapi import Request, Response
from sqlalchemy import BigInteger, Integer, LargeBinary, String, delete
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.db import Base, now_ms
from app.errors import ApiError, Conflict, Unprocessable
from app.platform import read_scope

if TYPE_CHECKING:
    from app.platform import Platform

KEPT_MS = 24 * 3600 * 1000
_MAX_KEY = 255


class KeptReply(Base):
    """The reply to a POST that was sent with a key."""

    __tablename__ = "kept_replies"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    path: Mapped[str] = mapped_column(String(300), primary_key=True)
    key: Mapped[str] = mapped_column(String(_MAX_KEY), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    reply: Mapped[bytes] = mapped_column(LargeBinary)
    created_ms: Mapped[int] = mapped_column(BigInteger, index=True)


@dataclass(frozen=True)
class Repeatable:
    """A request that carries a key: who sent it, where to, and what."""

    project_id: str
    path: str
    key: str
    body_sha256: str

    def with_body(self, body: bytes) -> Repeatable:
        """The same with the digest of its body."""
        return replace(self, body_sha256=hashlib.sha256(body).hexdigest())


def key_of(request: Request) -> str | None:
    """The request's key, if it has one; raises 400 `invalid_idempotency_key`."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
        raise ApiError(
            "invalid_idempotency_key",
            f"Idempotency-Key must be one header of 1 to {_MAX_KEY} printable ASCII characters.",
            "Idempotency-Key",
        )
    return key


def kept(platform: Platform, asked: Repeatable) -> KeptReply | None:
    """The reply kept for the same key and path."""
    with read_scope(platform) as session:
        row = session.get(KeptReply, (asked.project_id, asked.path, asked.key))
        return None if row is None or row.created_ms < now_ms(session) - KEPT_MS else row


def replay(row: KeptReply, asked: Repeatable) -> Response:
    """The kept reply once more; another body raises 422."""
    if row.body_sha256 != asked.body_sha256:
        message = "This Idempotency-Key was used before, with another body; use a new key for a new request."
        raise Unprocessable("idempotency_key_reused", message, "Idempotency-Key")
    headers = {"Idempotency-Replayed": "true"}
    return Response(row.reply, row.status, headers=headers, media_type="application/json")


def keep(session: Session, asked: Repeatable, status: int, reply: bytes) -> None:
    """Write the reply into the transaction that does the work. Those older than a day go on the way."""
    forget_expired(session)
    now = now_ms(session)
    row = KeptReply(project_id=asked.project_id, path=asked.path, key=asked.key, body_sha256=asked.body_sha256)
    row.status, row.reply, row.created_ms = status, reply, now
    session.add(row)


def forget_expired(session: Session) -> int:
    """Delete replies older than a day; returns how many."""
    done = session.execute(delete(KeptReply).where(KeptReply.created_ms < now_ms(session) - KEPT_MS))
    return int(getattr(done, "rowcount", 0))


def in_flight() -> Conflict:
    """The answer to the second of two copies sent at once; a retry does help here."""
    refused = Conflict("idempotency_in_flight", "A request with this Idempotency-Key is still being answered.")
    refused.headers = {"Retry-After": "1"}
    return refused
