"""A job of two processes, over HTTP: one is killed, and the job goes on from its last checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.server import serving
from groundwork.client import Client
from tests.groundwork.serving import eventually

SCALED = {"GROUNDWORK_LEASE_SECONDS": "20", "GROUNDWORK_HEARTBEAT_SECONDS": "1", "GROUNDWORK_BACKOFF_SECONDS": "0.2"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    folder = tmp_path_factory.mktemp("ranks")
    with serving(folder, SCALED) as (url, key), Client(url, key, retries=20) as client:
        yield client, folder / "data"


@pytest.fixture(scope="module")
def dataset(served: tuple[Client, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    draw = random.Random(1)
    words = [f"word{n}" for n in range(200)]
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    path.write_text("\n".join(json.dumps({"text": " ".join(draw.choices(words, k=30))}) for _ in range(100)))
    return served[0].datasets.upload(path).wait().id


def ranks(data: Path) -> dict[int, int]:
    """Rank -> pid of the living processes of the run below `data`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = dict(pair.split("=", 1) for pair in (entry / "environ").read_text().split("\0") if "=" in pair)
            running = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (OSError, UnicodeDecodeError):
            continue
        if running and "RANK" in variables and variables.get("GROUNDWORK_RUN", "").startswith(str(data)):
            found[int(variables["RANK"])] = int(entry.name)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_rank_costs_one_restart_from_the_last_checkpoint(served: tuple[Client, Path], dataset: str) -> None:
    client, data = served
    job = client.jobs.create(
        type="pretrain", dataset=dataset, objective={"name": "mlm"}, backbone="text-tiny", budget={"steps": 40},
        batch_size=8, checkpoint_every_steps=5, seed=7, resources={"processes": 2},
    )  # fmt: skip
    eventually(lambda: list(job.checkpoints()), 240)
    assert set(ranks(data)) == {0, 1}
    os.kill(ranks(data)[1], signal.SIGKILL)  # rank 0 is the engine of tests/faults/test_kills.py
    ended = job.wait()
    assert [attempt.outcome for attempt in ended.attempts] == ["lost", "succeeded"], ended.attempts
    (resumed,) = [event for event in job.events() if event.code == "resumed"]
    assert resumed.data["step"] >= 5
    eventually(lambda: not ranks(data), 10)
