"""`groundwork backup` of a serving data folder in mid-training, and `groundwork restore` into another one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from groundwork.client import Client
from tests.groundwork.serving import Served, eventually, run

WORDS = [f"word{n}" for n in range(10)]


def submit(client: Client, dataset: str, steps: int) -> str:
    job = client.jobs.create(
        type="pretrain", dataset=dataset, objective={"name": "mlm"}, backbone="text-tiny", budget={"steps": steps},
        batch_size=8, checkpoint_every_steps=5, seed=3,
    )  # fmt: skip
    return job.id


def upload(client: Client, folder: Path) -> str:
    pool = folder / "pool.jsonl"
    lines = [" ".join(WORDS[(n + k) % 10] for k in range(8 + n % 20)) for n in range(60)]
    pool.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    return client.datasets.upload(pool).wait().id


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_running_goes_on_elsewhere_from_its_checkpoint_and_the_first_key_still_works(tmp_path: Path) -> None:
    first = Served(tmp_path / "first").ready()
    try:
        key = re.findall(r"\bgw_\w+", first.printed())[0]
        with Client(first.state()["url"], key) as client:
            job = submit(client, upload(client, tmp_path), steps=150)
            eventually(lambda: list(client.jobs.checkpoints(job)), 120)
            done = run("backup", str(tmp_path / "backup"), "--data-dir", str(first.folder))
            assert done.returncode == 0 and client.jobs.get(job).status == "running", done.stderr
    finally:
        first.kill()
    back = run("restore", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "second"))
    assert back.returncode == 0 and "1 jobs that ran go on" in back.stdout, back.stderr
    assert os.stat(tmp_path / "second" / "secrets.json").st_mode & 0o777 == 0o600
    second = Served(tmp_path / "second").ready()
    try:
        with Client(second.state()["url"], key) as client:
            ended = client.jobs.wait(job)
            assert [attempt.outcome for attempt in ended.attempts] == ["released", "succeeded"]
            assert "resumed" in {event.code for event in ended.events()}
            steps = next(iter(ended.metrics().values())).steps
            assert steps == sorted(set(steps))
            assert ended.model().download(tmp_path / "model.zip").stat().st_size > 10_000
    finally:
        assert second.stop() == 0


def test_what_stops_a_restore_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("restore", str(tmp_path / "empty"), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no manifest.json" in done.stderr
