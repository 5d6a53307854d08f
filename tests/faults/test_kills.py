"""Kill -9 each process of a running job three times: the job ends with the bits of an undisturbed run.

A real `groundwork serve`, real jobs, real SIGKILLs at random moments (the seed is printed on failure). Times are scaled
down; the rules are those of production.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.server import serving
from groundwork.client import Client, Job

SCALED = {
    "GROUNDWORK_LEASE_SECONDS": "6",
    "GROUNDWORK_HEARTBEAT_SECONDS": "1",
    "GROUNDWORK_RECONCILE_SECONDS": "2",
    "GROUNDWORK_BACKOFF_SECONDS": "0.2",
    "GROUNDWORK_MAX_INFRA_LOSSES": "20",
}
STEPS = 150
KILLS = 3
WORDS = [f"word{n}" for n in range(400)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    folder = tmp_path_factory.mktemp("kills")
    with serving(folder, SCALED) as (url, key), Client(url, key, retries=20) as client:
        yield client, folder / "data"


@pytest.fixture(scope="module")
def dataset(served: tuple[Client, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    draw = random.Random(1)
    lines = [json.dumps({"text": " ".join(draw.choices(WORDS, k=draw.randint(20, 120)))}) for _ in range(400)]
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    path.write_text("\n".join(lines))
    return served[0].datasets.upload(path).wait().id


def submit(client: Client, dataset: str) -> str:
    job = client.jobs.create(
        type="pretrain",
        dataset=dataset,
        objective={"name": "mlm"},
        backbone="text-tiny",
        budget={"steps": STEPS},
        batch_size=16,
        checkpoint_every_steps=10,
        seed=7,
    )
    return job.id


def outcome(client: Client, job: Job) -> tuple[str, dict[str, Any]]:
    """Digest of the weights, and every metric series that is a function of training, not of the clock."""
    archive = zipfile.ZipFile(io.BytesIO(client.transport.respond("GET", f"/models/{job.model_id}/download").content))
    weights = hashlib.sha256(archive.read("model.safetensors")).hexdigest()
    series = client.request("GET", f"/jobs/{job.id}/metrics")["series"]
    timing = ("time/", "throughput")
    exact = [each for each in series if not each["name"].startswith(timing)]
    return weights, {each["name"]: (each["steps"], each["values"]) for each in exact}


@pytest.fixture(scope="module")
def undisturbed(served: tuple[Client, Path], dataset: str) -> tuple[str, dict[str, Any]]:
    return outcome(served[0], served[0].jobs.wait(submit(served[0], dataset)))


def processes() -> Iterator[tuple[int, int, str]]:
    """(pid, parent, command line) of every live process."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if stat[0] != "Z":
            yield int(entry.name), int(stat[1]), command


def victim_pid(victim: str, data: Path) -> int | None:
    """The process to kill: serve.json names its children, the engine is known by its run folder in this data folder."""
    if victim == "engine":
        return next((p for p, _, c in processes() if "ssl_core.run" in c and str(data) in c), None)
    pid = json.loads((data / "serve.json").read_text())["pids"].get(victim)
    return pid if pid in {p for p, _, _ in processes()} else None


def kill_when_running(client: Client, job: str, victim: str, data: Path, after: float) -> int:
    """Wait until the job trains and the victim lives, then `after` more seconds, then SIGKILL; the pid that died."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        state = client.jobs.get(job)
        assert state.status in {"queued", "running"}, f"the job ended too early: {state.status} {state.error}"
        pid = victim_pid(victim, data)
        if state.status == "running" and pid is not None and victim_pid("engine", data) is not None:
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)
            return pid
        time.sleep(0.05)
    raise AssertionError(f"no running {victim} to kill within two minutes")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "victim", ["worker", *(pytest.param(each, marks=pytest.mark.faults) for each in ("api", "engine", "broker"))]
)  # a training each, killed and gone on with; of the others `make test` has shorter tests
def test_three_kills_of_one_process_change_no_bit(
    victim: str, served: tuple[Client, Path], dataset: str, undisturbed: tuple[str, dict[str, Any]]
) -> None:
    client, data = served
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    job = submit(client, dataset)
    killed: set[int] = set()
    while len(killed) < KILLS:
        pid = kill_when_running(client, job, victim, data, after=draw.uniform(0.0, 2.5))
        assert pid not in killed
        killed.add(pid)
        time.sleep(0.3)
    ended = client.jobs.wait(job)
    weights, series = outcome(client, ended)
    assert weights == undisturbed[0]
    assert series == undisturbed[1]
    assert len(ended.attempts) >= (1 if victim in {"api", "broker"} else 2)
