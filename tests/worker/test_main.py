"""The worker as a process: signals, kills, the broker coming and going."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis
from celery import Celery

from tests.services import Valkey
from tests.worker.door import TOKEN, StandIn
from tests.worker.harness import ROOT, WorkerProcess, engines, eventually
from worker.main import make_celery
from worker.settings import WorkerSettings

Spawn = Callable[..., WorkerProcess]


def ring(valkey: Valkey, job_id: str) -> None:
    with Celery(broker=valkey.url, set_as_current=False) as bell:
        bell.send_task("groundwork.ring", args=[job_id], queue="cpu", ignore_result=True)


def test_the_consumer_is_set_up_for_doorbells_and_nothing_else() -> None:
    conf = make_celery(WorkerSettings(worker_token=TOKEN, broker_url="redis://x", slots=3, short_slots=2)).conf
    fixed = {
        "accept_content": ["json"], "task_serializer": "json", "task_ignore_result": True, "task_acks_late": False,
        "task_default_queue": "cpu", "worker_prefetch_multiplier": 1, "worker_disable_prefetch": True,
        "worker_concurrency": 5, "worker_pool": "threads", "worker_enable_remote_control": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False, "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True, "result_backend": None,
    }  # fmt: skip
    assert {key: conf[key] for key in fixed} == fixed


def test_a_kill_of_the_supervisor_leaves_no_engine_and_the_next_worker_gives_the_job_back(
    door: StandIn, spawn: Spawn, tmp_path: Path
) -> None:
    job = door.add(steps=40, delay=0.03)
    worker = spawn()
    eventually(lambda: 5 in job.checkpoints)
    worker.kill()
    eventually(lambda: not engines(tmp_path), 3)
    assert job.status == "running", "only the lease knows so far"
    assert oct((tmp_path / "worker" / "attempts" / "job_1-1.json").stat().st_mode)[-3:] == "600"
    spawn()
    eventually(lambda: job.status == "succeeded")
    assert job.releases == ["lost"] and job.fence == 2
    assert set(job.steps()) == set(range(1, 41))
    eventually(lambda: not list((tmp_path / "worker" / "attempts").iterdir()))
    assert not list((tmp_path / "worker" / "runs").iterdir())


def test_sigterm_saves_the_running_job_gives_it_back_and_exits_0(door: StandIn, spawn: Spawn, tmp_path: Path) -> None:
    job = door.add(steps=1000)
    worker = spawn()
    eventually(lambda: len(job.steps()) > 2)
    assert worker.terminate() == 0
    assert job.status == "queued" and job.releases == ["drain"] and max(job.checkpoints) == max(job.steps())
    assert not engines(tmp_path)


def test_sigterm_of_an_idle_worker_exits_0_quickly(door: StandIn, spawn: Spawn) -> None:
    worker = spawn()
    eventually(worker.alive.exists)
    began = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - began < 10


def test_a_bell_starts_the_job_at_once(door: StandIn, spawn: Spawn, valkey: Valkey) -> None:
    spawn(broker_url=valkey.url)
    eventually(lambda: door.claims and settled(door))
    job = door.add(steps=2)
    ring(valkey, job.id)
    eventually(lambda: job.status == "succeeded", 5)
    assert "job_1" in door.claims, "claimed by the bell, not by polling"


def test_a_hundred_bells_for_one_job_make_one_attempt(door: StandIn, spawn: Spawn, valkey: Valkey) -> None:
    job = door.add(steps=40)
    for _ in range(100):
        ring(valkey, job.id)
    worker = spawn(broker_url=valkey.url)
    eventually(lambda: job.status == "succeeded")
    assert job.fence == 1
    queue = redis.Redis(unix_socket_path=str(valkey.socket))
    eventually(lambda: queue.llen("cpu") == 0)
    assert job.fence == 1 and worker.process.poll() is None


def test_sigterm_drains_a_job_that_a_bell_started(door: StandIn, spawn: Spawn, valkey: Valkey) -> None:
    job = door.add(steps=1000)
    ring(valkey, job.id)
    worker = spawn(broker_url=valkey.url)
    eventually(lambda: len(job.steps()) > 2)
    assert worker.terminate() == 0
    assert job.releases == ["drain"]


def test_without_a_broker_at_start_it_polls_and_hears_the_bell_once_there_is_one(
    door: StandIn, spawn: Spawn, valkey: Valkey
) -> None:
    valkey.kill()
    first = door.add("job_1", steps=2)
    spawn(broker_url=valkey.url)
    eventually(lambda: first.status == "succeeded")
    valkey.start()
    eventually(lambda: settled(door), 30)
    second = door.add("job_2", steps=2)
    ring(valkey, second.id)
    eventually(lambda: second.status == "succeeded")
    assert "job_2" in door.claims


def test_a_broker_killed_under_a_running_job_changes_nothing(door: StandIn, spawn: Spawn, valkey: Valkey) -> None:
    job = door.add(steps=60)
    ring(valkey, job.id)
    spawn(broker_url=valkey.url)
    eventually(lambda: len(job.steps()) > 2)
    valkey.kill()
    other = door.add("job_2", steps=2)
    eventually(lambda: job.status == "succeeded" and other.status == "succeeded")
    assert job.fence == 1 and job.steps() == list(range(1, 61))
    valkey.start()


def test_an_idle_worker_is_small_and_has_no_torch(door: StandIn, spawn: Spawn, valkey: Valkey) -> None:
    job = door.add(steps=1)
    worker = spawn(broker_url=valkey.url)
    ring(valkey, job.id)
    eventually(lambda: job.status == "succeeded")
    pid = worker.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert kilobytes < 120 * 1024
    assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def test_check_tells_a_worker_that_loops_from_one_that_hangs(door: StandIn, spawn: Spawn, tmp_path: Path) -> None:
    def check() -> int:
        environment = os.environ | {"GROUNDWORK_DATA_DIR": str(tmp_path), "GROUNDWORK_WORKER_TOKEN": TOKEN}
        return subprocess.run([sys.executable, "-m", "worker.main", "--check"], env=environment, cwd=ROOT).returncode

    assert check() == 1
    worker = spawn()
    eventually(worker.alive.exists)
    assert check() == 0
    worker.kill()
    os.utime(worker.alive, (time.time() - 300,) * 2)
    assert check() == 1


def test_wrong_settings_are_one_line_and_a_status(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDWORK_")}
    environment |= {"GROUNDWORK_DATA_DIR": str(tmp_path), "GROUNDWORK_WORKER_TOKEN": "short", "GROUNDWORK_SLOTS": "0"}
    command = [sys.executable, "-m", "worker.main"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "GROUNDWORK_WORKER_TOKEN" in done.stderr and "GROUNDWORK_SLOTS" in done.stderr
    assert "short" not in done.stderr.replace("shorter", "")


def test_each_log_line_is_json_and_those_about_a_job_carry_its_id(door: StandIn, spawn: Spawn) -> None:
    job = door.add(steps=1)
    worker = spawn()
    eventually(lambda: job.status == "succeeded" and "job_1-1: succeeded" in worker.log.read_text())
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    claimed, ended = (next(line for line in lines if words in line["event"]) for words in ("claimed", "succeeded"))
    assert {claimed["job_id"], ended["job_id"]} == {"job_1"} and claimed["attempt"] == 1
    assert claimed["level"] == "info" and claimed["timestamp"].endswith("Z")
    assert "job_id" not in next(line for line in lines if line["event"].startswith("ready"))


def settled(door: StandIn) -> bool:
    """True once the worker has stopped polling: the bell is what it waits for."""
    seen = len(door.claims)
    time.sleep(0.5)
    return len(door.claims) == seen
