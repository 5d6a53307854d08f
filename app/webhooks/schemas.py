"""Receivers and deliveries as the API shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.webhooks.service import EVENTS
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from ssl_core.values import Value

Event = Literal[
    "job.succeeded", "job.failed", "job.cancelled", "fine_tuning.job.succeeded", "fine_tuning.job.failed",
    "fine_tuning.job.cancelled", "batch.completed", "batch.failed", "batch.expired", "batch.cancelled", "dataset.ready",
    "dataset.invalid",
]  # fmt: skip
Url = Annotated[
    str, Field(min_length=1, max_length=2000, description="https or http, a public host, an allowed port, no redirect")
]
_TOLD = "; ".join(f"`{name}`: {told}" for name, told in EVENTS.items())
Events = Annotated[list[Event], Field(min_length=1, max_length=len(EVENTS), description=_TOLD)]
_URL = "https://example.com/hooks/groundwork"
_ENDPOINT: dict[str, Any] = {
    "object": "webhook_endpoint", "id": "whk_01jd3w7k2x", "created_at": 1767225600, "url": _URL,
    "events": ["job.failed", "job.succeeded"], "description": None, "status": "enabled", "disabled_reason": None,
}  # fmt: skip
_DELIVERY: dict[str, Any] = {
    "object": "webhook_delivery", "id": "evt_01jd3w7k2x", "created_at": 1767225600, "event": "job.succeeded",
    "status": "delivered", "attempts": 1, "answer_status": 200, "error": None, "next_attempt_at": None,
    "data": {"id": "job_01jd3w7k2x"},
}  # fmt: skip


class EndpointCreate(Value):
    """A new receiver."""

    model_config = ConfigDict(json_schema_extra={"example": {"url": _URL, "events": ["job.succeeded", "job.failed"]}})

    url: Url
    events: Events
    description: str | None = Field(default=None, max_length=200)


class EndpointChange(Value):
    """What is left out stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "enabled"}})

    url: Url | None = None
    events: Events | None = None
    description: str | None = Field(default=None, max_length=200)
    status: Literal["enabled", "disabled"] | None = None


class SecretRotate(Value):
    """A new secret; both sign meanwhile."""

    model_config = ConfigDict(json_schema_extra={"example": {"overlap_seconds": 3600}})

    overlap_seconds: int = Field(default=86_400, ge=0, le=30 * 86_400, description="how long the old one signs too")


class EndpointShape(BaseModel):
    """A receiver; its secret is shown once, when it is made or rotated."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ENDPOINT]})

    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    id: str
    created_at: int = Field(description="unix seconds")
    url: str
    events: list[str]
    description: str | None
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None = Field(description="why nothing is sent: its owner, 410 Gone, or days of failure")
    secret: str | None = Field(default=None, description="`whsec_…`; only in the reply that made it")

    @classmethod
    def of(cls, row: WebhookEndpoint, secret: str | None = None) -> EndpointShape:
        """The shape of a row."""
        return cls.model_validate(
            {
                "id": row.id, "created_at": row.created_ms // 1000, "url": row.url, "events": row.events,
                "description": row.description, "status": row.status, "disabled_reason": row.disabled_reason,
                "secret": secret,
            }
        )  # fmt: skip


class DeliveryShape(BaseModel):
    """An event on its way to one receiver; `id` is what the receiver gets as `webhook-id`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DELIVERY]})

    object: Literal["webhook_delivery"] = "webhook_delivery"
    id: str
    created_at: int = Field(description="unix seconds")
    event: str
    data: dict[str, Any]
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    answer_status: int | None = Field(description="of the last attempt")
    error: str | None = Field(description="why the last attempt failed")
    next_attempt_at: int | None = Field(description="unix seconds")

    @classmethod
    def of(cls, row: WebhookDelivery) -> DeliveryShape:
        """The shape of a row."""
        return cls.model_validate(
            {
                "id": row.id, "created_at": row.created_ms // 1000, "event": row.event, "data": row.body["data"],
                "status": row.status, "attempts": row.attempts, "answer_status": row.answer_status, "error": row.error,
                "next_attempt_at": row.due_ms // 1000 if row.status == "pending" else None,
            }
        )  # fmt: skip


class EndpointDeleted(BaseModel):
    """What is gone, with all that was on its way to it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "whk_01jd3w7k2x", "object": "webhook_endpoint", "deleted": True}]}
    )

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    deleted: Literal[True] = True
