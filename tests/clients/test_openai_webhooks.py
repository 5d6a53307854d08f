"""Webhook endpoints with the official client, and `webhooks.unwrap` on what was really delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import webhooks as events

from tests.app.conftest import make_settings
from tests.app.jobs_world import ready_dataset
from tests.app.test_webhooks import Receiver, allowing, eventually, receiver
from tests.clients.conftest import World, start_world

__all__ = ["receiver"]
PRETRAIN: Any = {"type": "pretrain"}


@pytest.fixture
def hooked(sqlite_url: str, tmp_path: Path, receiver: Receiver) -> Iterator[World]:
    yield from start_world(make_settings(sqlite_url, tmp_path, **allowing(receiver)))


def test_a_training_and_batches_that_end_are_unwrapped(hooked: World, receiver: Receiver) -> None:
    client = hooked.openai()
    hook = client.webhooks.create(
        name="mine", url=receiver.url,
        event_types=["fine_tuning.job.succeeded", "batch.cancelled", "batch.failed", "batch.completed"],
    )  # fmt: skip
    dataset = ready_dataset(hooked.platform, hooked.project_id)
    tuned = client.fine_tuning.jobs.create(
        model="auto", training_file=dataset, method=PRETRAIN, extra_body={"objective": {"name": "mlm"}}
    )
    ticket = hooked.worker.claim(tuned.id)
    assert ticket is not None and hooked.worker.complete(ticket).status_code == 200
    file = client.files.create(file=("r.jsonl", b"{"), purpose="batch").id
    batches = [
        client.batches.create(input_file_id=file, endpoint="/v1/embeddings", completion_window="24h").id
        for _ in range(2)
    ]
    client.batches.cancel(batches[0])
    ticket = hooked.worker.claim(batches[1])
    assert ticket is not None
    hooked.worker.post(ticket, "fail", error={"class": "data", "code": "invalid_batch", "message": "m"})
    eventually(lambda: len(receiver.got) == 3)
    signed = openai.OpenAI(api_key="unused", webhook_secret=hook.signing_secret)
    told = [signed.webhooks.unwrap(body, headers) for headers, body in receiver.got]
    assert {(type(event), event.data.id) for event in told} == {  # type: ignore[union-attr]
        (events.FineTuningJobSucceededWebhookEvent, tuned.id), (events.BatchCancelledWebhookEvent, batches[0]),
        (events.BatchFailedWebhookEvent, batches[1]),
    }  # fmt: skip
    headers, body = receiver.got[0]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        signed.webhooks.unwrap(body + b" ", headers)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret="whsec_" + "A" * 32)


def test_an_endpoint_is_made_changed_rotated_and_deleted(hooked: World, receiver: Receiver) -> None:
    client = hooked.openai()
    made = client.webhooks.create(name="mine", url=receiver.url, event_types=["batch.completed"])
    assert (made.object, made.name, made.url, made.event_types) == (
        "webhook_endpoint", "mine", receiver.url, ["batch.completed"],
    )  # fmt: skip
    assert made.signing_secret.startswith("whsec_")
    found = client.webhooks.retrieve(made.id)
    assert found.id == made.id and "whsec_" not in found.to_json()
    changed = client.webhooks.update(made.id, name="yours", event_types=["batch.failed", "batch.completed"])
    assert (changed.name, changed.event_types) == ("yours", ["batch.completed", "batch.failed"])
    rotated = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret not in (made.signing_secret, None)
    others = [client.webhooks.create(name=str(at), url=receiver.url, event_types=["batch.failed"]).id for at in "ab"]
    assert [each.id for each in client.webhooks.list(limit=2)] == [*others[::-1], made.id]
    assert {"batch.completed", "fine_tuning.job.failed"} <= set(client.webhooks.event_types.list().data)
    gone = client.webhooks.delete(made.id)
    assert (gone.object, gone.id, gone.deleted) == ("webhook_endpoint.deleted", made.id, True)
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)


def test_a_sample_is_sent_while_the_caller_waits_and_both_secrets_sign(hooked: World, receiver: Receiver) -> None:
    client = hooked.openai()
    made = client.webhooks.create(name="mine", url=receiver.url, event_types=["batch.completed"])
    new = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True).signing_secret
    receiver.answers = [204, 500]
    for status in (204, 500):
        result = client.webhooks.test(made.id, event_type="batch.completed")
        assert (result.object, result.event_type, result.webhook_endpoint_id) == (
            "webhook_endpoint.test", "batch.completed", made.id,
        )  # fmt: skip
        assert (result.status_code, result.success) == (status, True)
    for secret in (made.signing_secret, new):
        event = client.webhooks.unwrap(receiver.got[0][1], receiver.got[0][0], secret=secret)
        assert isinstance(event, events.BatchCompletedWebhookEvent)
    last = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=False).signing_secret
    client.webhooks.test(made.id, event_type="batch.completed")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(receiver.got[-1][1], receiver.got[-1][0], secret=new)
    assert client.webhooks.unwrap(receiver.got[-1][1], receiver.got[-1][0], secret=last).type == "batch.completed"


def test_a_receiver_that_is_not_there_is_told_to_the_caller(hooked: World, receiver: Receiver) -> None:
    def hang_up(handler: Any) -> None:
        handler.close_connection = True

    receiver.behave = hang_up
    client = hooked.openai()
    made = client.webhooks.create(name="mine", url=receiver.url, event_types=["batch.completed"])
    with pytest.raises(openai.ConflictError) as caught:
        client.webhooks.test(made.id, event_type="batch.completed")
    assert caught.value.code == "not_reached"


def test_a_wrong_event_or_field_is_named_as_the_client_wrote_it(hooked: World, receiver: Receiver) -> None:
    client = hooked.openai()
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.webhooks.create(name="mine", url=receiver.url, event_types=["response.completed"])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "event_types.0")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.webhooks.create(name="m", url=receiver.url, event_types=["batch.failed"], extra_body={"events": []})
    assert str(caught.value.param) in ("events", "event_types")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.webhooks.create(name="mine", url="http://10.0.0.1/", event_types=["batch.failed"])
    assert (caught.value.code, caught.value.param) == ("url_not_allowed", "url")


def test_the_asynchronous_client_knows_webhooks_too(hooked: World, receiver: Receiver) -> None:
    async def walk() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{hooked.live.url}/v1", api_key=hooked.live.key) as client:
            made = await client.webhooks.create(name="mine", url=receiver.url, event_types=["batch.failed"])
            await client.webhooks.test(made.id, event_type="batch.failed")
            return client.webhooks.unwrap(receiver.got[0][1], receiver.got[0][0], secret=made.signing_secret)

    assert isinstance(asyncio.run(walk()), events.BatchFailedWebhookEvent)
