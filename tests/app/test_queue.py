"""The doorbell: its configuration, a real broker, a dead one, an emptied one (R1–R3, M8)."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten
from kombu import Connection

from app.platform import session_scope
from app.queue import CONFIG, TASK, BrokerDown, Doorbell
from app.reaper import Reconciler
from tests.app.conftest import make_settings, serve
from tests.app.jobs_world import LIMITS, Worker, make_job, pretrain_body, ready_dataset
from tests.services import Valkey


def messages(url: str, queue: str = "cpu") -> list[Any]:
    """Take every waiting message: (headers' task, body)."""
    found = []
    with Connection(url) as connection:
        while (raw := connection.default_channel.client.rpop(queue)) is not None:
            message = json.loads(raw)
            found.append((message["headers"]["task"], json.loads(base64.b64decode(message["body"]))))
    return found


def test_the_configuration_is_what_was_decided() -> None:
    assert {name: CONFIG[name] for name in CONFIG if name != "broker_transport_options"} == {
        "task_serializer": "json", "result_serializer": "json", "accept_content": ["json"], "task_ignore_result": True,
        "result_backend": None, "task_acks_late": False, "task_reject_on_worker_lost": False,
        "task_publish_retry": False, "task_create_missing_queues": True, "task_send_sent_event": False,
        "worker_send_task_events": False, "worker_prefetch_multiplier": 1, "worker_disable_prefetch": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False, "worker_enable_remote_control": False,
        "broker_connection_retry_on_startup": True, "broker_connection_timeout": 2.0, "broker_pool_limit": 2,
        "enable_utc": True,
    }  # fmt: skip
    assert set(CONFIG) <= set(dict(flatten(NAMESPACES))), "every name is one that Celery knows"


def test_a_message_is_the_job_id_and_nothing_else(valkey: Valkey) -> None:
    bell = Doorbell(valkey.url)
    bell.ring("job_1", "cpu")
    bell.ring("job_2", "gpu")
    assert bell.backlog("cpu") == 1
    [(task, body)] = messages(valkey.url)
    assert task == TASK == "groundwork.ring"
    assert body[0] == ["job_1"] and body[1] == {} and not any(body[2].values())
    assert [body[0] for _, body in messages(valkey.url, "gpu")] == [["job_2"]]
    bell.close()


def test_a_dead_broker_is_told_within_seconds_and_forgiven_when_it_is_back(valkey: Valkey) -> None:
    bell = Doorbell(valkey.url)
    bell.ring("job_1", "cpu")
    valkey.kill()
    began = time.monotonic()
    with pytest.raises(BrokerDown):
        bell.ring("job_2", "cpu")
    assert not bell.reachable()
    assert time.monotonic() - began < 10
    valkey.start()
    bell.ring("job_3", "cpu")
    assert bell.reachable()
    bell.close()


def test_without_a_broker_ringing_is_a_no_op() -> None:
    bell = Doorbell("")
    bell.ring("job_1", "cpu")
    assert not bell.exists and bell.backlog("cpu") == 0 and bell.reachable()


def test_a_create_is_rung_after_its_commit(valkey: Valkey, sqlite_url: str, tmp_path: Any) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, broker_url=valkey.url)):
        dataset = ready_dataset(api.platform, api.project_id)
        job = api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
        assert [job] in [body[0] for body in _until(lambda: messages(valkey.url), job)]


def test_a_create_with_a_dead_broker_still_answers_201_and_is_rung_later(
    valkey: Valkey, sqlite_url: str, tmp_path: Any
) -> None:
    valkey.kill()
    for api in serve(make_settings(sqlite_url, tmp_path, broker_url=valkey.url)):
        dataset = ready_dataset(api.platform, api.project_id)
        began = time.monotonic()
        reply = api.client.post("/v1/jobs", json=pretrain_body(dataset))
        assert reply.status_code == 201 and time.monotonic() - began < 10
        valkey.start()
        job = reply.json()["id"]
        assert [job] in [body[0] for body in _until(lambda: messages(valkey.url), job)]
        assert Worker(api.anonymous).claim(job) is not None


def test_an_emptied_broker_is_rung_again(valkey: Valkey, sqlite_url: str, tmp_path: Any) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, broker_url=valkey.url, reconcile_seconds=0.3)):
        dataset = ready_dataset(api.platform, api.project_id)
        job = api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
        _until(lambda: messages(valkey.url), job)
        with Connection(valkey.url) as connection:
            connection.default_channel.client.flushall()
        assert [job] in [body[0] for body in _until(lambda: messages(valkey.url), job)]


def test_nobody_rings_into_a_queue_that_is_full_already(platform: Any) -> None:
    dataset = ready_dataset(platform, "proj_1")
    with session_scope(platform) as session:
        make_job(session, "proj_1", dataset).rung_at = 0

    class Full:
        exists = True
        rung = 0

        def backlog(self, queue: str) -> int:
            return 1000

        def ring(self, job_id: str, queue: str) -> None:
            self.rung += 1

    full = Full()
    assert Reconciler(platform, full, LIMITS).ring_again() == 0  # type: ignore[arg-type]
    assert full.rung == 0


def _until(take: Any, job_id: str, seconds: float = 15) -> list[Any]:
    """Bodies taken until one is about this job."""
    found: list[Any] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found += [body for _, body in take()]
        if any(body[0] == [job_id] for body in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no doorbell for {job_id}; rung were {found}")
