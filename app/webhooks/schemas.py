"""Receivers and deliveries as the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

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
    "events": ["job.failed", "job.succeeded"], "event_types": ["job.failed", "job.succeeded"], "description": None,
    "name": "example.com", "status": "enabled", "disabled_reason": None,
}  # fmt: skip
_DELIVERY: dict[str, Any] = {
    "object": "webhook_delivery", "id": "evt_01jd3w7k2x", "created_at": 1767225600, "event": "job.succeeded",
    "status": "delivered", "attempts": 1, "answer_status": 200, "error": None, "next_attempt_at": None,
    "data": {"id": "job_01jd3w7k2x"},
}  # fmt: skip


def _either(ours: str, theirs: str) -> AliasChoices:
    """A field under our name or the one that OpenAI's client sends; both at once is an unknown field."""
    return AliasChoices(ours, theirs)


def _with_their_names(example: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """For the document: this example, and both names of a field."""

    def extend(schema: dict[str, Any]) -> None:
        schema["example"] = example
        known = schema["properties"]
        for ours, theirs in (("events", "event_types"), ("description", "name")):
            about = f"`{ours}`, as OpenAI's clients call it; send one of the two"
            known[theirs] = {**{k: v for k, v in known[ours].items() if k != "title"}, "description": about}
        schema["not"] = {"anyOf": [{"required": ["events", "event_types"]}, {"required": ["description", "name"]}]}
        if "events" in schema.get("required", []):
            schema["required"].remove("events")
            schema["anyOf"] = [{"required": ["events"]}, {"required": ["event_types"]}]

    return extend


class EndpointCreate(Value):
    """A new receiver."""

    model_config = ConfigDict(
        json_schema_extra=_with_their_names({"url": _URL, "events": ["job.succeeded", "job.failed"]})
    )

    url: Url
    events: Events = Field(validation_alias=_either("events", "event_types"))
    description: str | None = Field(
        default=None, max_length=200, validation_alias=_either("description", "name")
    )


class EndpointChange(Value):
    """What is left out stays."""

    model_config = ConfigDict(json_schema_extra=_with_their_names({"status": "enabled"}))

    url: Url | None = None
    events: Events | None = Field(default=None, validation_alias=_either("events", "event_types"))
    description: str | None = Field(
        default=None, max_length=200, validation_alias=_either("description", "name")
    )
    status: Literal["enabled", "disabled"] | None = None


class SecretRotate(Value):
    """A new secret; both sign meanwhile."""

    model_config = ConfigDict(json_schema_extra={"example": {"overlap_seconds": 3600}})

    overlap_seconds: int = Field(default=86_400, ge=0, le=30 * 86_400, description="how long the old one signs too")
    keep_old_secret_active_for_24_hours: bool | None = Field(
        default=None, description="the same in OpenAI's words: true is a day, false is nothing"
    )

    @model_validator(mode="after")
    def _said_once(self) -> SecretRotate:
        if self.keep_old_secret_active_for_24_hours is not None and "overlap_seconds" in self.model_fields_set:
            raise ValueError("overlap_seconds and keep_old_secret_active_for_24_hours say the same; send one of them")
        return self

    @property
    def overlap(self) -> int:
        """Seconds."""
        return 0 if self.keep_old_secret_active_for_24_hours is False else self.overlap_seconds


class EndpointTest(Value):
    """What to try."""

    model_config = ConfigDict(json_schema_extra={"example": {"event_type": "fine_tuning.job.succeeded"}})

    event_type: Event = Field(description="a sample of this event, sent at once: the reply waits for the receiver's")


class EndpointShape(BaseModel):
    """A receiver; its secret is shown once, when it is made or rotated."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ENDPOINT]})

    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    id: str
    created_at: int = Field(description="unix seconds")
    url: str
    events: list[str]
    event_types: list[str] = Field(description="the same, as OpenAI's clients read it")
    description: str | None
    name: str = Field(description="the same, or the URL's host where there is none")
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None = Field(description="why nothing is sent: its owner, 410 Gone, or days of failure")
    secret: str | None = Field(default=None, description="`whsec_…`; only in the reply that made it")
    signing_secret: str | None = Field(default=None, description="the same, as OpenAI's clients read it")

    @classmethod
    def of(cls, row: WebhookEndpoint, secret: str | None = None) -> EndpointShape:
        """The shape of a row."""
        return cls.model_validate(
            {
                "id": row.id, "created_at": row.created_ms // 1000, "url": row.url, "events": row.events,
                "event_types": row.events, "description": row.description, "name": row.description or _host(row.url),
                "status": row.status, "disabled_reason": row.disabled_reason,
                "secret": secret, "signing_secret": secret,
            }
        )  # fmt: skip


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


class EventTypes(BaseModel):
    """The events that a receiver may ask for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "list", "data": ["job.succeeded", "job.failed"]}]}
    )

    object: Literal["list"] = "list"
    data: list[str]


class TestResult(BaseModel):
    """What the receiver answered to a sample."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"object": "webhook_endpoint.test", "event_type": "fine_tuning.job.succeeded", "status_code": 200,
         "success": True, "webhook_endpoint_id": "whk_01jd3w7k2x"}
    ]})  # fmt: skip

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    event_type: str
    status_code: int
    success: Literal[True] = Field(default=True, description="there was an answer; `status_code` says which")
    webhook_endpoint_id: str


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
        json_schema_extra={
            "examples": [{"id": "whk_01jd3w7k2x", "object": "webhook_endpoint.deleted", "deleted": True}]
        }
    )

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True
