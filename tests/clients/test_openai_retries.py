"""What the official client does by itself when something goes wrong on the way, and what comes of it here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.app.conftest import make_settings
from tests.clients.conftest import World, start_world
from tests.clients.served import Served, start_served
from tests.faults.proxy import Proxy
from tests.inference_role import start_role, stop_role

PRETRAIN: Any = {"type": "pretrain"}
MLM = {"objective": {"name": "mlm"}}


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    with Proxy(world.live.port) as made:
        yield made


def through(world: World, proxy: Proxy, **options: Any) -> openai.OpenAI:
    return world.openai(base_url=f"{proxy.url}/v1", **options)


@contextmanager
def until(happened: Callable[[], Any], then: Callable[[], Any]) -> Iterator[None]:
    """Do the second thing, in the background, as soon as the first is true."""

    def watch() -> None:
        end = time.monotonic() + 60
        while not happened() and time.monotonic() < end:
            time.sleep(0.02)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    thread.join(70)


def let_pass(proxy: Proxy) -> None:
    proxy.mode = "pass"


def test_a_training_whose_reply_was_cut_is_made_once(world: World, proxy: Proxy) -> None:
    dataset, direct = world.dataset(), world.openai()
    client = through(world, proxy, max_retries=8, timeout=20)
    proxy.mode = "cut_answers"
    with until(lambda: direct.fine_tuning.jobs.list().data, lambda: let_pass(proxy)):
        raw = client.fine_tuning.jobs.with_raw_response.create(
            model="auto", training_file=dataset, method=PRETRAIN, extra_body=MLM
        )
    assert raw.retries_taken > 0
    assert [job.id for job in direct.fine_tuning.jobs.list()] == [raw.parse().id]


def test_a_batch_whose_reply_was_cut_is_made_once(world: World, proxy: Proxy) -> None:
    direct = world.openai()
    file = direct.files.create(file=("r.jsonl", b"{}"), purpose="batch").id
    client = through(world, proxy, max_retries=8, timeout=20)
    proxy.mode = "cut_answers"
    with until(lambda: direct.batches.list().data, lambda: let_pass(proxy)):
        made = client.batches.create(input_file_id=file, endpoint="/v1/embeddings", completion_window="24h")
    assert [each.id for each in direct.batches.list()] == [made.id]


def test_a_file_whose_reply_was_cut_is_made_once_where_the_caller_names_the_request(world: World, proxy: Proxy) -> None:
    direct = world.openai()
    client = through(world, proxy, max_retries=8, timeout=20)
    proxy.mode = "cut_answers"
    with until(lambda: direct.files.list().data, lambda: let_pass(proxy)):
        made = client.files.create(
            file=("r.jsonl", b"{}"), purpose="batch", extra_headers={"Idempotency-Key": "the first file"}
        )
    assert [each.id for each in direct.files.list()] == [made.id]


def test_a_named_request_is_answered_once_and_again_the_same(world: World) -> None:
    client, named = world.openai(), {"Idempotency-Key": "one"}
    first = client.files.create(file=("r.jsonl", b"{}"), purpose="batch", extra_headers=named)
    assert client.files.create(file=("r.jsonl", b"{}"), purpose="batch", extra_headers=named) == first
    with pytest.raises(openai.UnprocessableEntityError):
        client.files.create(file=("r.jsonl", b"[]"), purpose="batch", extra_headers=named)
    assert [each.id for each in client.files.list()] == [first.id]


def test_a_part_sent_again_is_the_same_part(world: World, proxy: Proxy) -> None:
    direct = world.openai()
    begun = direct.uploads.create(bytes=5, filename="a.txt", mime_type="text/plain", purpose="batch")
    client = through(world, proxy, max_retries=8, timeout=20)

    def arrived() -> Any:
        found: Any = direct.get(f"/uploads/{begun.id}", cast_to=object)
        return found["parts"]

    proxy.mode = "cut_answers"
    with until(arrived, lambda: let_pass(proxy)):
        part = client.uploads.parts.create(begun.id, data=b"hello")
    assert [each["id"] for each in arrived()] == [part.id]
    assert direct.uploads.complete(begun.id, part_ids=[part.id]).status == "completed"


def test_silence_is_a_timeout_and_a_closed_door_a_connection_error(world: World, proxy: Proxy) -> None:
    proxy.mode = "swallow"
    with pytest.raises(openai.APITimeoutError):
        through(world, proxy, timeout=0.5).models.list()
    proxy.mode = "refuse"
    with pytest.raises(openai.APIConnectionError):
        through(world, proxy).models.list()


def test_a_conflict_is_not_tried_again(world: World) -> None:
    client = world.openai(max_retries=3)
    made = client.fine_tuning.jobs.create(
        model="auto", training_file=world.dataset(), method=PRETRAIN, extra_body=MLM
    )
    client.fine_tuning.jobs.cancel(made.id)
    with pytest.raises(openai.ConflictError) as caught:
        client.fine_tuning.jobs.resume(made.id)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


@pytest.fixture
def limited(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    yield from start_world(make_settings(sqlite_url, tmp_path, requests_per_minute=60))


@pytest.mark.patient
def test_too_many_requests_are_told_when_to_come_back_and_do(limited: World) -> None:
    client = limited.openai()
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(200):
            client.models.list()
    assert int(caught.value.response.headers["retry-after"]) >= 1 and caught.value.type == "rate_limit_error"
    patient = limited.openai(max_retries=5)
    assert patient.models.with_raw_response.list().retries_taken > 0


@pytest.fixture
def unserved(sqlite_template: Path, tmp_path: Path) -> Iterator[Served]:
    yield from start_served(sqlite_template, tmp_path, worker=False, role=False)


def test_embeddings_wait_for_an_inference_role_that_is_away(unserved: Served) -> None:
    served, model = unserved, unserved.models["text"]
    with pytest.raises(openai.InternalServerError) as caught:
        served.openai().embeddings.create(model=model, input="salt")
    assert (caught.value.status_code, caught.value.code) == (503, "inference_unavailable")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    told: list[Any] = []

    def ask() -> None:
        told.append(served.openai(max_retries=100).embeddings.with_raw_response.create(model=model, input="salt"))

    asking = threading.Thread(target=ask)
    asking.start()
    # Here and not in the thread: the role ends with the thread that started it.
    role = start_role(served.url, served.platform.settings.inference_url, served.folder)
    asking.join(200)
    stop_role(role)
    assert told[0].retries_taken > 0 and told[0].parse().data
