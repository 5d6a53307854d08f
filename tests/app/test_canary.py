"""No secret in any reply, header or log line, whatever goes wrong (R23, R24, R31)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from app.jobs.tables import Job
from app.platform import Platform, session_scope
from ssl_core.redaction import redacted
from tests.app.conftest import SECRETS, LiveApi
from tests.app.jobs_world import WORKER, bearer, pretrain_body, ready_dataset


@dataclass
class Scene:
    """A server whose every reply is kept."""

    live: LiveApi
    job_id: str
    secrets: dict[str, str]
    replies: list[tuple[int, str]]

    def send(self, method: str, path: str, key: str | None = None, **more: Any) -> int:
        """Send, keep all of the reply, return its status."""
        headers = {**bearer(key or self.live.key), **more.pop("headers", {})}
        reply: httpx2.Response = self.live.client.request(method, path, headers=headers, **more)
        self.replies.append((reply.status_code, f"{reply.headers} {reply.text}"))
        return reply.status_code


@pytest.fixture
def scene(live_api: LiveApi) -> Iterator[Scene]:
    platform = Platform.open(live_api.settings)
    project = live_api.client.get("/v1/projects?order=asc").json()["data"][0]["id"]
    dataset = ready_dataset(platform, project)
    job_id = live_api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
    claim = {"job_id": job_id, "queue": "cpu", "worker": WORKER}
    token = live_api.client.post("/internal/v1/claim", json=claim, headers=bearer(SECRETS["worker_token"]))
    secrets = {**SECRETS, "key": live_api.key.rpartition("_")[2], "attempt": token.json()["token"]}
    yield Scene(live_api, job_id, secrets, [])
    platform.close()


def bad_keys(scene: Scene) -> None:
    key, attempt, worker = scene.live.key, scene.secrets["attempt"], scene.secrets["worker_token"]
    for wrong in (key[:-1] + "0", attempt, worker, scene.secrets["secret_key"]):
        assert scene.send("GET", "/v1/jobs", wrong) == 401
        assert scene.send("GET", "/v1/jobs", "x", params={"after": wrong, "api_key": wrong}) in (401, 422)
    for wrong in (key, attempt[:-1] + "_", attempt, worker + "x"):
        assert scene.send("POST", "/internal/v1/claim", wrong, json={}) in (401, 403, 422)
        path = f"/internal/v1/jobs/{scene.job_id}/heartbeat"
        assert scene.send("POST", path, wrong, json={"fence": 7}) in (401, 403, 404, 409)


def secrets_in_wrong_places(scene: Scene) -> None:
    for secret in (scene.live.key, scene.secrets["attempt"]):
        for body in ({"type": secret}, {"type": "pretrain", "dataset": secret}, {"type": "pretrain", "seed": secret}):
            assert scene.send("POST", "/v1/jobs", json=body) == 422
        assert scene.send("POST", "/v1/embeddings", json={"model": secret, "input": "a"}) in (404, 422)
        assert scene.send("GET", f"/v1/jobs/{secret}") in (404, 422)
        assert scene.send("GET", f"/v1/{secret}") == 404
        assert scene.send("GET", "/v1/jobs", params={"status": secret}) == 422
        assert scene.send("POST", "/v1/jobs", content=f'{{"type": "{secret}" oops}}') in (400, 415)
        assert scene.send("POST", "/v1/jobs", json={}, headers={"Accept": secret}) == 406


def a_fault_of_ours(scene: Scene) -> None:
    platform = Platform.open(scene.live.settings)
    with session_scope(platform) as session:
        session.execute(update(Job).where(Job.id == scene.job_id).values(status="no such state"))
    platform.close()
    assert scene.send("GET", f"/v1/jobs/{scene.job_id}") == 500
    assert scene.send("GET", "/v1/jobs", params={"limit": 5}) == 500


def test_no_secret_is_in_a_reply_a_header_or_a_log_line(scene: Scene) -> None:
    bad_keys(scene)
    secrets_in_wrong_places(scene)
    assert scene.send("GET", "/metrics") == 200
    a_fault_of_ours(scene)
    log = scene.live.log.read_text()
    assert log.count("request_failed") == 2 and log.count('"event": "request"') >= len(scene.replies) - 1
    for name, secret in scene.secrets.items():
        assert secret not in log, name
        assert not [told for told in scene.replies if secret in told[1]], name
    assert {401, 403, 404, 422, 500} <= {status for status, _ in scene.replies}


def test_the_database_holds_neither_keys_nor_tokens(scene: Scene) -> None:
    with sqlite3.connect(scene.live.settings.data_dir / "groundwork.db") as database:
        dump = "\n".join(database.iterdump())
    assert scene.job_id in dump
    assert not [name for name, secret in scene.secrets.items() if secret in dump]


def test_only_keys_and_tokens_are_cut(scene: Scene) -> None:
    text = f"key {scene.live.key}, token {scene.secrets['attempt']}; gw_short, ds_01jd3w8m6k"
    assert redacted(text) == "key gw_…, token gwa_…; gw_short, ds_01jd3w8m6k"
