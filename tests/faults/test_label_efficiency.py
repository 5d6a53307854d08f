"""A label-efficiency job whose processes are killed gives the report of one that was left alone."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.server import serving
from groundwork.client import Client
from tests.faults.test_kills import SCALED, victim_pid

TOPICS = {"bread": ["flour", "oven", "yeast", "crust", "dough"], "ships": ["sail", "mast", "harbour", "keel", "anchor"]}
COMMON = [f"word{n}" for n in range(60)]


def texts(path: Path, rows: int, seed: int, labelled: bool) -> Path:
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"] if labelled else ["text"])
        for row in range(rows):
            topic = list(TOPICS)[row % 2]
            words = draw.choices(TOPICS[topic], k=4) + draw.choices(COMMON, k=20)
            draw.shuffle(words)
            writer.writerow([" ".join(words), topic] if labelled else [" ".join(words)])
    return path


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    with serving(tmp_path, SCALED) as (url, key), Client(url, key, retries=20) as made:
        yield made, tmp_path


def submitted(client: Client, folder: Path) -> str:
    """The id of the job, its pretrained model made."""
    pool, rows, test = (
        client.datasets.upload(texts(folder / f"{name}.csv", count, seed, labelled)).wait().id
        for name, count, seed, labelled in (("pool", 200, 1, False), ("rows", 40, 2, True), ("test", 40, 3, True))
    )
    job = client.jobs.create(
        type="pretrain", dataset=pool, objective={"name": "span_contrast"}, backbone="text-tiny",
        budget={"steps": 20}, batch_size=16, seed=1,
    )  # fmt: skip
    model = job.wait().model_id
    spec: dict[str, Any] = {
        "type": "label_efficiency", "model": model, "dataset": rows, "test_dataset": test, "labels": [3, 8], "seeds": 2,
        "arms": ["probe", "classical"],
    }  # fmt: skip
    return client.jobs.create(**spec).id


def points(client: Client, job: str, folder: Path) -> list[tuple[Any, ...]]:
    """What the report says, but for times and ids."""
    client.jobs.wait(job)
    client.jobs.download_files(job, folder / "report")
    report = json.loads((folder / "report" / "report.json").read_text())
    assert (folder / "report" / "report.html").stat().st_size > 5_000
    return sorted((p["arm"], p["labels"], p["rows"], p["seed"], p["score"]) for p in report["points"])


@pytest.mark.slow
def test_a_killed_report_is_that_of_an_undisturbed_run(client: tuple[Client, Path], tmp_path_factory: Any) -> None:
    served, folder = client
    job = submitted(served, folder)
    for victim in ("engine", "worker", "api"):
        assert kill(served, job, victim, folder / "data"), f"no {victim} to kill"
    found = points(served, job, folder)
    other = tmp_path_factory.mktemp("undisturbed")
    with serving(other, SCALED) as (url, key), Client(url, key) as second:
        assert points(second, submitted(second, other), other) == found
    assert len(found) == 8


def kill(client: Client, job: str, victim: str, data: Path) -> bool:
    """SIGKILL while a part runs; False where the job ended before."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and client.jobs.get(job).status in ("queued", "running"):
        pid = victim_pid(victim, data)
        if pid is not None and victim_pid("engine", data) is not None:
            time.sleep(0.3)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        time.sleep(0.02)
    return False
