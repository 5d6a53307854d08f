"""Test events: put on their way like all others, or sent while the caller waits."""

from __future__ import annotations

from app.errors import Conflict
from app.platform import Platform, session_scope
from app.threads import in_thread
from app.webhooks import service
from app.webhooks.courier import Courier, Sending
from app.webhooks.schemas import DeliveryShape, TestResult


def put(platform: Platform, project_id: str, endpoint_id: str) -> DeliveryShape:
    """An event `webhook.test` on its way. Raises NotFound."""
    with session_scope(platform) as session:
        return DeliveryShape.of(service.test(session, service.get(session, project_id, endpoint_id)))


async def send(platform: Platform, project_id: str, endpoint_id: str, event: str) -> TestResult:
    """A sample of an event, sent now.

    Raises:
        NotFound: no such receiver.
        Forbidden: `outbound_off`.
        Conflict: `not_reached`, nothing was answered.
    """
    courier = Courier(platform)
    sending = await in_thread(_taken, platform, courier, project_id, endpoint_id, event)
    answer = await courier.send(sending)
    if answer.status is None:
        raise Conflict("not_reached", f"The receiver gave no answer: {answer.error}.", "id")
    return TestResult(event_type=event, status_code=answer.status, webhook_endpoint_id=endpoint_id)


def _taken(platform: Platform, courier: Courier, project_id: str, endpoint_id: str, event: str) -> Sending:
    with session_scope(platform) as session:
        row = service.get(session, project_id, endpoint_id)
        service.check_outbound(platform.settings)
        return courier.take(session, service.test(session, row, event))
