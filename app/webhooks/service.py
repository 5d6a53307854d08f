"""Receivers, and the events that are put on their way: in the transaction that makes them happen, so none is lost."""

from __future__ import annotations

import base64
import secrets
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from app.db import now_ms
from app.errors import Forbidden, NotFound, Unprocessable
from app.ids import new_id
from app.settings import Settings
from app.webhooks.outbound import Outbound, Refused
from app.webhooks.sealing import seal
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

MAX_ENDPOINTS = 20
"""Of a project."""
_PREFIX = "whsec_"
EVENTS = {
    "job.succeeded": "a job has ended well; `data.id` is its id",
    "job.failed": "a job has failed",
    "job.cancelled": "a job was cancelled",
    "fine_tuning.job.succeeded": "the same under OpenAI's name, of training jobs",
    "fine_tuning.job.failed": "the same under OpenAI's name, of training jobs",
    "fine_tuning.job.cancelled": "the same under OpenAI's name, of training jobs",
    "batch.completed": "a batch has ended; `data.id` is its id",
    "batch.failed": "nothing of a batch's file could be used, or its job failed",
    "batch.expired": "a batch did not end within its window",
    "batch.cancelled": "a batch was cancelled",
    "dataset.ready": "a dataset can be used; `data.id` is its id",
    "dataset.invalid": "nothing of an upload could be used",
}
TEST_EVENT = "webhook.test"
TRAINING = ("pretrain", "finetune")


def create(
    session: Session, settings: Settings, project_id: str, url: str, events: list[str], description: str | None
) -> tuple[WebhookEndpoint, str]:
    """A receiver and its secret, which is shown this once.

    Raises:
        Forbidden: `outbound_off`, the operator allows no outgoing calls; `quota_exceeded`.
        Unprocessable: `url_not_allowed`.
    """
    check_outbound(settings)
    check_url(settings, url)
    count = session.scalar(select(func.count()).select_from(endpoints_of(project_id).subquery())) or 0
    if count >= MAX_ENDPOINTS:
        raise Forbidden("quota_exceeded", f"A project has at most {MAX_ENDPOINTS} webhook endpoints; delete one.")
    secret = secrets.token_bytes(24)
    row = WebhookEndpoint(
        id=new_id("whk"), project_id=project_id, url=url, events=sorted(set(events)), description=description,
        status="enabled", disabled_reason=None, sealed_secret=seal(settings, secret), created_ms=now_ms(session),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row, text_of(secret)


def check_outbound(settings: Settings) -> None:
    """Raises Forbidden `outbound_off`."""
    if not settings.outbound:
        message = "This server sends no webhooks; its operator can allow them with GROUNDWORK_OUTBOUND=true."
        raise Forbidden("outbound_off", message)


def text_of(secret: bytes) -> str:
    """As Standard Webhooks writes secrets."""
    return _PREFIX + base64.b64encode(secret).decode()


def check_url(settings: Settings, url: str) -> None:
    """Raises Unprocessable `url_not_allowed` with the reason."""
    try:
        Outbound.of(settings).check(url)
    except Refused as refused:
        raise Unprocessable("url_not_allowed", f"`url` cannot be used: {refused}.", "url") from None


def endpoints_of(project_id: str) -> Select[WebhookEndpoint]:
    """The receivers of a project."""
    return select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)


def get(session: Session, project_id: str, endpoint_id: str) -> WebhookEndpoint:
    """One of the project; raises `NotFound`."""
    row = session.scalar(endpoints_of(project_id).where(WebhookEndpoint.id == endpoint_id))
    if row is None:
        raise NotFound("webhook endpoint", endpoint_id)
    return row


def change(
    session: Session, settings: Settings, row: WebhookEndpoint, changes: dict[str, Any]
) -> WebhookEndpoint:
    """Set what was sent. A receiver that is enabled again is sent what waits for it at once."""
    if "url" in changes:
        check_url(settings, changes["url"])
    if "events" in changes:
        changes["events"] = sorted(set(changes["events"]))
    if changes.get("status") == "enabled" and row.status == "disabled":
        row.disabled_reason = None
        # What was not delivered before it was disabled goes out now.
        waiting = (WebhookDelivery.endpoint_id == row.id, WebhookDelivery.status == "pending")
        session.execute(update(WebhookDelivery).where(*waiting).values(due_ms=now_ms(session)))
    elif changes.get("status") == "disabled":
        row.disabled_reason = "disabled by its owner"
    for name, value in changes.items():
        setattr(row, name, value)
    session.flush()
    return row


def rotate(session: Session, settings: Settings, row: WebhookEndpoint, overlap_seconds: int) -> str:
    """A new secret; until the overlap is over the old one signs too."""
    secret = secrets.token_bytes(24)
    row.sealed_old_secret = row.sealed_secret if overlap_seconds else None
    row.old_secret_until_ms = now_ms(session) + overlap_seconds * 1000
    row.sealed_secret = seal(settings, secret)
    session.flush()
    return text_of(secret)


def deliveries_of(endpoint_id: str) -> Select[WebhookDelivery]:
    """What was and will be sent to a receiver."""
    return select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)


def test(session: Session, row: WebhookEndpoint, event: str = TEST_EVENT) -> WebhookDelivery:
    """An event that says nothing, or a sample of another, for this receiver alone."""
    return _put(session, row.id, event, {"id": row.id})


def publish(session: Session, project_id: str, event: str, data: dict[str, Any]) -> None:
    """Put an event on its way to every enabled receiver that asked for it, in this transaction."""
    for row in session.scalars(endpoints_of(project_id)):
        if event in row.events and row.status == "enabled":
            _put(session, row.id, event, data)


def _put(session: Session, endpoint_id: str, event: str, data: dict[str, Any]) -> WebhookDelivery:
    now, id = now_ms(session), new_id("evt")
    body = {"id": id, "object": "event", "created_at": now // 1000, "type": event, "data": data}
    row = WebhookDelivery(
        id=id, endpoint_id=endpoint_id, event=event, body=body, status="pending", attempts=0, due_ms=now,
        claimed_until_ms=None, created_ms=now,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row
