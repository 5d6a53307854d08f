"""The all-in-one as users meet it: started, stopped, killed, started again."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from groundwork.client import Client
from tests.groundwork.serving import Served, eventually, living, run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One serve for the tests that leave it running."""
    found = Served(tmp_path_factory.mktemp("serve") / "data").ready()
    yield found
    found.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Served]]:
    """Start serve on this test's folder; killed at the end."""
    started: list[Served] = []

    def begin() -> Served:
        started.append(Served(tmp_path / "data"))
        return started[-1].ready()

    yield begin
    for each in started:
        each.kill()


def key_of(served: Served) -> str:
    return str(re.findall(r"\bgw_\w+", served.printed())[0])


def test_the_first_start_prints_a_key_that_works(served: Served) -> None:
    with Client(served.state()["url"], key_of(served)) as client:
        assert list(client.jobs.list()) == []


def test_serve_json_names_the_url_and_every_process(served: Served) -> None:
    assert set(served.pids()) == {"api", "worker", "inference", "broker"}
    assert all(living(pid) for pid in served.pids().values())
    assert served.status("/readyz") == 200


def test_secrets_are_in_no_command_line_and_only_their_owner_can_read_the_file(served: Served) -> None:
    file = served.folder / "secrets.json"
    assert oct(file.stat().st_mode)[-3:] == "600"
    secrets = json.loads(file.read_text()).values()
    for pid in served.pids().values():
        line = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(secret in line for secret in secrets)


def test_only_the_api_gets_the_key_of_the_keys(served: Served) -> None:
    secret = json.loads((served.folder / "secrets.json").read_text())["secret_key"]
    holders = {n for n, pid in served.pids().items() if secret in Path(f"/proc/{pid}/environ").read_text()}
    assert holders == {"api"}


def test_a_second_start_on_the_same_folder_is_refused_in_one_line(served: Served) -> None:
    done = run("serve", "--data-dir", str(served.folder), "--port", "0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "already uses" in done.stderr and str(served.process.pid) in done.stderr
    assert served.status("/healthz") == 200


@pytest.mark.parametrize("name", ["api", "worker", "inference", "broker"])
def test_a_killed_child_is_started_again(served: Served, name: str) -> None:
    pid = served.pids()[name]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: served.pids().get(name, pid) != pid)
    assert served.status("/healthz") == 200, "no connection is refused meanwhile: the supervisor holds the socket"
    assert f"{name} ended: killed by signal 9" in served.printed()


def test_a_live_stream_does_not_hold_up_the_end_of_the_api(start: Callable[[], Served], tmp_path: Path) -> None:
    served = start()
    url, key = served.state()["url"], key_of(served)
    pool = tmp_path / "pool.jsonl"
    pool.write_text("\n".join(json.dumps({"text": f"line {n} of a small pool"}) for n in range(200)))
    with Client(url, key) as client:
        dataset = client.datasets.upload(pool).wait().id
        job = client.jobs.create(
            type="pretrain", dataset=dataset, objective={"name": "mlm"}, backbone="text-tiny", budget={"minutes": 30}
        ).id
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    with httpx2.stream("GET", f"{url}/v1/jobs/{job}/events", headers=headers, timeout=30) as live:
        lines = live.iter_lines()
        assert next(lines)
        pid = served.pids()["api"]
        os.kill(pid, signal.SIGTERM)
        began = time.monotonic()
        assert not [line for line in lines if line.startswith("event: done")]  # it ends, the job does not
        eventually(lambda: not living(pid))
    assert time.monotonic() - began < 8, "open requests have ten seconds, and a stream would take them all"
    eventually(lambda: "api ended: exit status 0" in served.printed())


@pytest.mark.slow
def test_ctrl_c_stops_everything_in_order_and_a_new_start_finds_everything(
    start: Callable[[], Served], tmp_path: Path
) -> None:
    first = start()
    pids, key = first.pids(), key_of(first)
    pool = tmp_path / "pool.jsonl"
    pool.write_text("\n".join(json.dumps({"text": f"line {n} of a small pool"}) for n in range(20)))
    with Client(first.state()["url"], key) as client:
        dataset = client.datasets.upload(pool).wait().id
    assert first.stop() == 0
    assert not [name for name, pid in pids.items() if living(pid)]
    assert not (first.folder / "serve.json").exists()
    second = start()
    assert not re.findall(r"\bgw_\w+", second.printed()), "the key is shown once"
    with Client(second.state()["url"], key) as client:
        assert client.datasets.get(dataset).status == "ready"


@pytest.mark.slow
def test_kill_9_of_the_supervisor_leaves_no_process_and_no_obstacle(start: Callable[[], Served]) -> None:
    first = start()
    pids = first.pids()
    first.kill()
    eventually(lambda: not [name for name, pid in pids.items() if living(pid)], 10)
    second = start()
    assert second.status("/readyz") == 200
    assert second.stop(signal.SIGTERM) == 0


def test_a_port_in_use_is_one_line(served: Served, tmp_path: Path) -> None:
    port = served.state()["url"].rpartition(":")[2]
    done = run("serve", "--data-dir", str(tmp_path / "other"), "--port", port)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and f"port {port}" in done.stderr and "--port" in done.stderr


def test_a_child_that_cannot_start_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    done = run("serve", "--data-dir", str(tmp_path / "data"), "--port", "0", slots="many")
    assert done.returncode == 2
    assert "worker did not start" in done.stderr and "GROUNDWORK_SLOTS" in done.stderr
    assert "Traceback" not in done.stderr
