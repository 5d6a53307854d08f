"""Secrets in a running platform's environment are in nothing that a user can fetch and in no log (R23)."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator

import httpx2
import pytest

from tests.groundwork.interchange import dataset, ended
from tests.groundwork.serving import Served

OTHERS = ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN", "OPENAI_API_KEY")
OURS = ("secret_key", "worker_token")
CANARIES = {name: f"canary{n}{name.lower()}{'x' * 20}" for n, name in enumerate((*OTHERS, *OURS))}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, httpx2.Client]]:
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHERS:
            patch.setenv(name, CANARIES[name])
        served = Served(tmp_path_factory.mktemp("canary") / "data", **{name: CANARIES[name] for name in OURS})
        try:
            key = re.search(r"\bgw_[a-z0-9_]+", served.ready().printed())
            assert key is not None
            bearer = {"Authorization": f"Bearer {key[0]}"}
            with httpx2.Client(base_url=served.state()["url"], headers=bearer, timeout=60) as client:
                yield served, client
        finally:
            served.stop()
            served.kill()


def trained(client: httpx2.Client) -> tuple[list[str], str]:
    """The jobs of a small model's life, and the model."""
    rows = "".join(json.dumps({"text": f"a text of {n} words", "label": "ab"[n % 2]}) + "\n" for n in range(60))
    made = dataset(client, "rows.jsonl", rows.encode())
    short = {"dataset": made, "budget": {"steps": 4}, "batch_size": 8}
    wanted = {"type": "pretrain", "objective": {"name": "mlm"}, "backbone": "text-tiny", **short}
    first = ended(client, client.post("/v1/jobs", json=wanted).json())
    assert first["status"] == "succeeded", first["error"]
    tuned = {"type": "finetune", "model": first["result"]["model"], "task": {"name": "classification"}, **short}
    second = ended(client, client.post("/v1/jobs", json=tuned).json())
    assert second["status"] == "succeeded", second["error"]
    broken = client.post("/v1/jobs", json={**tuned, "dataset": made, "task": {"name": "regression"}})
    assert broken.status_code == 422
    return [first["id"], second["id"]], second["result"]["model"]


def everything(client: httpx2.Client, jobs: list[str], model: str) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of all that belongs to them, archives opened."""
    paths = ["/v1/jobs", "/v1/models", "/v1/datasets", "/metrics", "/readyz", "/openapi.json", "/v1/audit_log"]
    paths += [f"/v1/jobs/{job}{part}" for job in jobs for part in ("", "/events", "/metrics", "/logs", "/checkpoints")]
    paths += [f"/v1/models/{model}", f"/v1/models/{model}/files"]
    for job in jobs:
        samples = client.get(f"/v1/jobs/{job}/samples").json()
        paths += [f"/v1/jobs/{job}/samples", *(each["url"] for each in samples["data"] if "url" in each)]
    files = client.get(f"/v1/models/{model}/files").json()["data"]
    paths += [f"/v1/models/{model}/files/{each['path']}" for each in files]
    for path in paths:
        reply = client.get(path)
        assert reply.status_code == 200, (path, reply.text)
        yield path, f"{reply.headers}".encode() + reply.content
    whole = client.get(f"/v1/models/{model}/download").content
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        yield from ((name, archive.read(name)) for name in archive.namelist())


def test_no_planted_secret_is_in_anything_that_a_user_can_fetch_nor_in_a_log(
    planted: tuple[Served, httpx2.Client],
) -> None:
    served, client = planted
    found = dict(everything(client, *trained(client)))
    assert len(found) > 30
    logs = {str(path): path.read_bytes() for path in served.folder.rglob("*.log")} | {
        "console": served.printed().encode(), **{str(p): p.read_bytes() for p in served.folder.rglob("log.txt")}
    }  # fmt: skip
    for name, secret in CANARIES.items():
        assert not [path for path, content in (found | logs).items() if secret.encode() in content], name
    inside = str(served.folder).encode()
    assert not [path for path, content in found.items() if inside in content], "a folder of the server is told"
