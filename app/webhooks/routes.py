"""`/v1/webhook_endpoints`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Request
from fastapi.openapi.models import Example

from app.auth.audit import audited
from app.deps import AdminKey, PageDep, PlatformDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep
from app.edge import api_router, keep_without_secret
from app.pagination import Listing, paginate
from app.threads import in_thread
from app.webhooks import service, trial
from app.webhooks.schemas import (
    DeliveryShape,
    EndpointChange,
    EndpointCreate,
    EndpointDeleted,
    EndpointShape,
    EndpointTest,
    EventTypes,
    SecretRotate,
    TestResult,
)
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint

router = api_router("webhooks")
_SAMPLE: dict[str, Example] = {
    "sample": {"summary": "A sample of one event, now", "value": {"event_type": "fine_tuning.job.succeeded"}}
}
Trial = Annotated[EndpointTest | None, Body(openapi_examples=_SAMPLE)]


@router.post("/webhook_endpoints", response_model=EndpointShape, status_code=201, summary="Add a receiver")
@audited("webhook_endpoint.created")
def create_webhook_endpoint(
    body: EndpointCreate, key: AdminKey, session: SessionDep, settings: SettingsDep, request: Request
) -> EndpointShape:
    """Events are POSTed to `url`, signed as Standard Webhooks says; the official `openai` client's `webhooks.unwrap`
    checks them. The secret is in this reply and nowhere else."""
    row, secret = service.create(session, settings, key.project_id, body.url, list(body.events), body.description)
    keep_without_secret(request, EndpointShape.of(row))
    return EndpointShape.of(row, secret)


@router.get("/webhook_endpoints", response_model=Listing[EndpointShape], summary="List receivers")
def list_webhook_endpoints(key: AdminKey, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """Disabled ones too; never a secret."""
    return paginate(session, service.endpoints_of(key.project_id), WebhookEndpoint, page, EndpointShape.of)


@router.get("/webhook_endpoints/{endpoint_id}", response_model=EndpointShape, summary="One receiver")
def get_webhook_endpoint(endpoint_id: str, key: AdminKey, session: ReadSessionDep) -> EndpointShape:
    """Without its secret."""
    return EndpointShape.of(service.get(session, key.project_id, endpoint_id))


@router.patch("/webhook_endpoints/{endpoint_id}", response_model=EndpointShape, summary="Change a receiver")
@audited("webhook_endpoint.changed")
def change_webhook_endpoint(
    endpoint_id: str, body: EndpointChange, key: AdminKey, session: SessionDep, settings: SettingsDep
) -> EndpointShape:
    """`status: enabled` also takes one back that was disabled because it failed; what waited is sent at once."""
    row = service.get(session, key.project_id, endpoint_id)
    sent = body.model_dump(exclude_unset=True, mode="json")
    kept = {name: value for name, value in sent.items() if value is not None or name == "description"}
    return EndpointShape.of(service.change(session, settings, row, kept))


@router.post(
    "/webhook_endpoints/{endpoint_id}", response_model=EndpointShape, summary="Change a receiver, as OpenAI does"
)
@audited("webhook_endpoint.changed")
def update_webhook_endpoint(
    endpoint_id: str, body: EndpointChange, key: AdminKey, session: SessionDep, settings: SettingsDep
) -> EndpointShape:
    """The same as `PATCH`."""
    return change_webhook_endpoint(endpoint_id, body, key, session, settings)


@router.delete("/webhook_endpoints/{endpoint_id}", response_model=EndpointDeleted, summary="Remove a receiver")
@audited("webhook_endpoint.deleted")
def delete_webhook_endpoint(endpoint_id: str, key: AdminKey, session: SessionDep) -> EndpointDeleted:
    """With all that was still on its way to it."""
    session.delete(service.get(session, key.project_id, endpoint_id))
    return EndpointDeleted(id=endpoint_id)


@router.post(
    "/webhook_endpoints/{endpoint_id}/rotate_secret", response_model=EndpointShape, status_code=201,
    summary="Rotate a receiver's secret",
)  # fmt: skip
@audited("webhook_endpoint.secret_rotated")
def rotate_webhook_secret(
    endpoint_id: str, body: SecretRotate, key: AdminKey, session: SessionDep, settings: SettingsDep, request: Request
) -> EndpointShape:
    """Until the overlap is over, deliveries carry a signature of each secret."""
    row = service.get(session, key.project_id, endpoint_id)
    secret = service.rotate(session, settings, row, body.overlap)
    keep_without_secret(request, EndpointShape.of(row))
    return EndpointShape.of(row, secret)


@router.post(
    "/webhook_endpoints/{endpoint_id}/test", response_model=DeliveryShape | TestResult, status_code=201,
    summary="Send a test event",
)  # fmt: skip
async def test_webhook_endpoint(
    endpoint_id: str, key: AdminKey, platform: PlatformDep, body: Trial = None
) -> DeliveryShape | TestResult:
    """An event `webhook.test`; its delivery tells what the receiver answered.

    With `event_type` a sample of that event is sent at once, and the reply says what was answered: 409 `not_reached`
    where nothing was. It is tried again later like every other event.
    """
    if body is None:
        return await in_thread(trial.put, platform, key.project_id, endpoint_id)
    return await trial.send(platform, key.project_id, endpoint_id, body.event_type)


@router.get("/webhook_event_types", response_model=EventTypes, summary="Events there are")
def list_webhook_event_types(key: ReadKey) -> EventTypes:
    """What `events` of a receiver may hold."""
    return EventTypes(data=list(service.EVENTS))


@router.get(
    "/webhook_endpoints/{endpoint_id}/deliveries", response_model=Listing[DeliveryShape], summary="Events and attempts"
)
def list_webhook_deliveries(endpoint_id: str, key: AdminKey, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """What was sent to a receiver in the last 30 days, what waits, and what came of it."""
    row = service.get(session, key.project_id, endpoint_id)
    return paginate(session, service.deliveries_of(row.id), WebhookDelivery, page, DeliveryShape.of)
