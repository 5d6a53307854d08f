"""Who did what with keys and receivers, who deleted what: entered with the deed, once, for its own project alone."""

from __future__ import annotations

from typing import Any

from app.db import now_ms
from app.platform import read_scope
from tests.app.conftest import Api, client_of
from tests.app.jobs_world import pretrain_body, ready_dataset


def log(api: Api, **query: str) -> list[dict[str, Any]]:
    reply = api.client.get("/v1/audit_log", params=query)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["data"]
    return found


def test_deeds_are_entered_with_key_target_and_request(api_everywhere: Api) -> None:
    api = api_everywhere
    dataset = ready_dataset(api.platform, api.project_id)
    made = api.client.post("/v1/api_keys", json={"name": "k"}).json()
    rotated = api.client.post(f"/v1/api_keys/{made['id']}/rotate", json={}).json()
    api.client.delete(f"/v1/api_keys/{made['id']}")
    deleted = api.client.delete(f"/v1/datasets/{dataset}", headers={"x-request-id": "my-own-id"})
    assert deleted.status_code == 200, deleted.text
    entries = log(api)
    assert [(one["action"], one["target"]) for one in entries] == [
        ("dataset.deleted", dataset), ("api_key.revoked", made["id"]), ("api_key.rotated", made["id"]),
        ("api_key.created", made["id"]),
    ]  # fmt: skip
    assert entries[0]["request_id"] == "my-own-id" and entries[0]["address"]
    own = api.client.get("/v1/api_keys", params={"order": "asc", "limit": 1}).json()["data"][0]["id"]
    assert {one["key"] for one in entries} == {own} and rotated["id"] != made["id"]
    with read_scope(api.platform) as session:
        assert all(abs(one["created_at"] - now_ms(session) // 1000) < 120 for one in entries)
    assert [one["action"] for one in log(api, target=made["id"], action="api_key.revoked")] == ["api_key.revoked"]
    assert log(api, action="model.deleted") == []


def test_what_was_refused_or_replayed_is_not_entered_again(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    for _ in range(3):
        assert api.client.post("/v1/api_keys", json={"name": "k"}, headers=headers).status_code == 201
    assert api.client.post("/v1/api_keys", json={"name": ""}).status_code == 422
    assert api.client.delete("/v1/api_keys/key_00000000000000000000000000").status_code == 404
    dataset = ready_dataset(api.platform, api.project_id)
    assert api.client.post("/v1/jobs", json=pretrain_body(dataset)).status_code == 201
    assert api.client.delete(f"/v1/datasets/{dataset}").status_code == 409
    assert [one["action"] for one in log(api)] == ["api_key.created"]


def test_the_record_is_for_admins_of_the_project_alone(api: Api) -> None:
    secret = api.client.post("/v1/projects", json={"name": "third"}).json()["api_key"]["key"]
    assert [one["action"] for one in log(api)] == ["project.created"]
    assert client_of(api.app, secret).get("/v1/audit_log").json()["data"] == []
    assert api.stranger.get("/v1/audit_log").json()["data"] == []
    assert api.with_scopes("read", "write").get("/v1/audit_log").status_code == 403
