"""The commands and variables of docker-compose.yml and of the manifests start the same roles as plain processes.

PostgreSQL, Redis and the S3-compatible store are real; only addresses and the data folder are changed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx2
import pytest

from groundwork.client import Client
from tests.deploy.declared import DATABASE, PASSWORDS, ROOT, Role, of_compose, of_manifests
from tests.inference_role import free_url
from tests.services import S3, Postgres, Valkey, die_with_parent, wait_for

DECLARED = {"compose": of_compose, "kubernetes": of_manifests}


@dataclass
class Places:
    """Where what the declarations name is here."""

    addresses: dict[str, str]
    folder: Path

    def environment(self, role: Role) -> dict[str, str]:
        """The role's variables with our addresses; nothing of this process's own settings."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("GROUNDWORK_", "AWS_"))}
        given = {name: self.addresses.get(value, value) for name, value in role.environment.items()}
        same = {name: value for name, value in given.items() if value == role.environment[name]}
        left = [name for name, value in same.items() if re.search(r"(//|@)[\w.]+:\d", value)]
        assert not left, f"addresses without a counterpart here: {left}"
        data = str(self.folder / role.name)
        given |= {"GROUNDWORK_DATA_DIR": data, "HOME": data, "PYTHONPATH": str(ROOT)}
        if role.name == "api":
            port = self.addresses["http://api:8420"].rpartition(":")[2]
            given |= {"GROUNDWORK_HOST": "127.0.0.1", "GROUNDWORK_PORT": port}
        return ours | given

    def start(self, role: Role) -> subprocess.Popen[bytes]:
        """`command` as it stands, by this interpreter."""
        command = [sys.executable, "-m", "groundwork.cli", *role.command[1:]]
        with (self.folder / f"{role.name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment(role), stdout=log, stderr=log, preexec_fn=die_with_parent
            )

    def said(self, role: str) -> str:
        """The role's log."""
        return (self.folder / f"{role}.log").read_text()


@pytest.fixture
def places(postgres: Postgres, valkey: Valkey, tmp_path: Path) -> Iterator[Places]:
    store, database, inference = S3(), postgres.create(), free_url()
    boto3.client(
        "s3", endpoint_url=store.url, region_name="us-east-1", aws_access_key_id="groundwork",
        aws_secret_access_key=PASSWORDS["STORE_PASSWORD"],
    ).create_bucket(Bucket="groundwork")  # fmt: skip
    known = {
        DATABASE: database, "redis://redis:6379/0": valkey.url, "http://store:8333": store.url,
        "http://api:8420": free_url(), "http://inference:8421": inference, "http://0.0.0.0:8421": inference,
    }  # fmt: skip
    yield Places(known, tmp_path)
    postgres.drop(database)
    store.stop()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def ingest(client: Client, folder: Path) -> str:
    """The id of a small dataset that a worker has read."""
    pool = folder / "pool.jsonl"
    pool.write_text("\n".join(json.dumps({"text": f"line {n} of a small pool of words"}) for n in range(40)))
    return client.datasets.upload(pool).wait().id


def pretrain_and_embed(client: Client, dataset: str) -> None:
    """A tiny pretraining, and an embedding by its model."""
    job = client.jobs.create(
        type="pretrain", dataset=dataset, objective={"name": "mlm"}, backbone="text-tiny", budget={"steps": 3},
        batch_size=8, seed=1,
    )  # fmt: skip
    (vector,) = job.wait().model().embed("a line of words")
    assert len(vector) > 8


@pytest.mark.slow
@pytest.mark.parametrize("where", DECLARED)
def test_the_declared_roles_work_together_and_stop_when_they_are_told(where: str, places: Places) -> None:
    roles: dict[str, Role] = {}
    for role in DECLARED[where]():
        roles.setdefault(role.name, role)
    assert places.start(roles["migrate"]).wait(180) == 0, places.said("migrate")
    key = re.findall(r"\bgw_\w+", places.said("migrate"))[0]
    running = {name: places.start(roles[name]) for name in ("api", "worker", "inference")}
    try:
        api, inference = places.addresses["http://api:8420"], places.addresses["http://inference:8421"]
        wait_for(lambda: answers(f"{api}/readyz") and answers(f"{inference}/healthz"), 180)
        parts = httpx2.get(f"{api}/readyz").json()["parts"]
        assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "ok")
        with Client(api, key) as client:
            dataset = ingest(client, places.folder)
            if where == "compose":  # the same processes: once is enough
                pretrain_and_embed(client, dataset)
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: process.wait(60) for name, process in running.items()}
        assert set(ended.values()) <= {0, -signal.SIGTERM}, ended
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert "Traceback" not in "".join(places.said(name) for name in running)
