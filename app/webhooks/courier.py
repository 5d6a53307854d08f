"""Takes events to their receivers: signed as Standard Webhooks says, again on a schedule until one answers 2xx.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. At least once, with the same
id each time; jobs never wait for it. Any number of API processes may deliver: each takes a delivery for a minute, and
what a killed one had taken is another's after that.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlunsplit

import httpx2
import structlog
from cryptography.fernet import InvalidToken
from sqlalchemy import Select, delete, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import now_ms
from app.platform import Platform, read_scope, session_scope
from app.webhooks.outbound import Outbound, Refused
from app.webhooks.sealing import unseal
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

log = structlog.get_logger(__name__)
DELAYS = (5, 300, 1800, 7200, 18_000, 36_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds to the next attempt after each; three and a half days in all."""
TIMEOUT_SECONDS = 15
KEPT_DAYS = 30
"""How long what was delivered, or given up, is still listed."""
_TAKEN_MS = 60_000
_AT_ONCE = 32
_HOUR = 3600


class Sending(NamedTuple):
    """A delivery that this process has taken."""

    id: str
    url: str
    body: bytes
    secrets: list[bytes]
    attempts: int


class Answer(NamedTuple):
    """What came of an attempt: the receiver's status, or why there is none."""

    status: int | None
    error: str | None


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64."""
    signed = hmac.new(secret, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


class Courier:
    """Delivers what is due."""

    def __init__(self, platform: Platform) -> None:
        self._platform, self._allowed = platform, Outbound.of(platform.settings)
        self._tidied = 0.0

    def round(self) -> int:
        """Try everything that is due once, at most one event of each receiver; returns how many were tried."""
        if not self._platform.settings.outbound:
            return 0
        if time.monotonic() - self._tidied > _HOUR or not self._tidied:
            self._tidied = time.monotonic()
            with session_scope(self._platform) as session:
                forget(session)
        with read_scope(self._platform) as session:
            # Most rounds find nothing, and need no lock for that.
            if not session.scalars(_due(now_ms(session)).limit(1)).first():
                return 0
        with session_scope(self._platform) as session:
            taken = self._take(session)
        if taken:
            asyncio.run(self._deliver(taken))
        return len(taken)

    def _take(self, session: Session) -> list[Sending]:
        query = _due(now_ms(session)).order_by(WebhookDelivery.due_ms, WebhookDelivery.id).limit(_AT_ONCE * 8)
        taken: dict[str, Sending] = {}
        for id in session.scalars(query.with_for_update(of=WebhookDelivery, skip_locked=True)).all():
            row = session.get_one(WebhookDelivery, id)
            if row.endpoint_id in taken or len(taken) >= _AT_ONCE:
                continue
            taken[row.endpoint_id] = self.take(session, row)
        return list(taken.values())

    def take(self, session: Session, row: WebhookDelivery) -> Sending:
        """This delivery is ours for a minute."""
        now, endpoint = now_ms(session), session.get_one(WebhookEndpoint, row.endpoint_id)
        row.claimed_until_ms = now + _TAKEN_MS
        body = json.dumps(row.body, separators=(",", ":")).encode()
        return Sending(row.id, endpoint.url, body, self._secrets(endpoint, now), row.attempts)

    async def send(self, sending: Sending) -> Answer:
        """One attempt, now, and a note of what came of it."""
        answer = await self._try(sending)
        await asyncio.to_thread(self._note, sending, answer)
        return answer

    def _secrets(self, endpoint: WebhookEndpoint, now: int) -> list[bytes]:
        sealed = [endpoint.sealed_secret]
        if endpoint.sealed_old_secret is not None and (endpoint.old_secret_until_ms or 0) > now:
            sealed.append(endpoint.sealed_old_secret)
        try:
            return [unseal(self._platform.settings, each) for each in sealed]
        except InvalidToken:
            return []

    async def _deliver(self, taken: Sequence[Sending]) -> None:
        async def one(sending: Sending) -> None:
            try:
                await self.send(sending)
            except SQLAlchemyError:
                # It is sent again when it is free once more: at least once.
                log.warning("delivery_not_noted", delivery=sending.id)

        async with asyncio.TaskGroup() as group:
            for sending in taken:
                group.create_task(one(sending))

    async def _try(self, sending: Sending) -> Answer:
        if not sending.secrets:
            return Answer(None, "its secret was sealed with another GROUNDWORK_SECRET_KEY; rotate it")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self._post(sending)
        except Refused as refused:
            return Answer(None, f"blocked_address: {refused}")
        except TimeoutError:
            return Answer(None, f"no answer within {TIMEOUT_SECONDS} s")
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            return Answer(None, f"{type(error).__name__}: {error}"[:300])

    async def _post(self, sending: Sending) -> Answer:
        """To the address that was checked, under the host's own name; no proxy, no redirect, and no reading of what
        it answers beyond the status."""
        target = await self._allowed.resolve(sending.url)
        parts = self._allowed.check(sending.url)
        literal = f"[{target.address}]" if ":" in target.address else target.address
        url = urlunsplit((parts.scheme, f"{literal}:{target.port}", parts.path or "/", parts.query, ""))
        timestamp = int(time.time())
        headers = {
            "Host": parts.netloc, "Content-Type": "application/json", "User-Agent": "Groundwork-Webhooks/1",
            "webhook-id": sending.id, "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(
                signature(secret, sending.id, timestamp, sending.body) for secret in sending.secrets
            ),
        }  # fmt: skip
        async with (
            httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT_SECONDS) as client,
            client.stream(
                "POST", url, content=sending.body, headers=headers, extensions={"sni_hostname": target.host}
            ) as reply,
        ):
            return Answer(reply.status_code, None if reply.is_success else f"answered {reply.status_code}")

    def _note(self, sending: Sending, answer: Answer) -> None:
        with session_scope(self._platform) as session:
            row = session.get(WebhookDelivery, sending.id)
            if row is None or row.status != "pending":
                return  # deleted with its receiver meanwhile, or delivered by another process
            now, attempts = now_ms(session), sending.attempts + 1
            row.attempts, row.claimed_until_ms = attempts, None
            row.answer_status, row.error = answer.status, answer.error and answer.error[:400]
            if answer.error is None:
                row.status, row.ended_ms = "delivered", now
            elif answer.status == 410:
                row.status, row.ended_ms = "failed", now
                self._disable(session, row.endpoint_id, "it answered 410 Gone")
            elif attempts > len(DELAYS):
                row.status, row.ended_ms = "failed", now
                self._disable(session, row.endpoint_id, f"{attempts} attempts to deliver {row.id} failed")
            else:
                row.due_ms = now + 1000 * DELAYS[attempts - 1]

    def _disable(self, session: Session, endpoint_id: str, reason: str) -> None:
        values = {"status": "disabled", "disabled_reason": reason}
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(**values))
        log.warning("webhook_endpoint_disabled", endpoint=endpoint_id, reason=reason)


def _due(now: int) -> Select[str]:
    """Ids of deliveries that nobody has taken and whose time has come.

    A receiver is sent one event at a time, so that one that is slow holds up nothing but itself.
    """
    free = or_(WebhookDelivery.claimed_until_ms.is_(None), WebhookDelivery.claimed_until_ms <= now)
    busy = select(WebhookDelivery.endpoint_id).where(
        WebhookDelivery.status == "pending", WebhookDelivery.claimed_until_ms > now
    )
    return (
        select(WebhookDelivery.id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(WebhookDelivery.status == "pending", WebhookDelivery.due_ms <= now, free)
        .where(WebhookEndpoint.status == "enabled", WebhookDelivery.endpoint_id.not_in(busy))
    )


def forget(session: Session) -> None:
    """Delete what ended long ago, and what waits for a receiver that was disabled long ago."""
    before = now_ms(session) - KEPT_DAYS * 86_400_000
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.created_ms < before))
