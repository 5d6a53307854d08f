"""Projects and keys: made, shown once, scoped, expired, rotated, revoked (R23, B17, B18, B21, B81)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.auth import recent, secret
from app.auth.service import bootstrap
from app.auth.tables import ApiKey
from app.migrate import migrate
from app.platform import read_scope, session_scope
from tests.app.conftest import Api, client_of, make_settings

REFUSED = {
    "message": "The API key is missing or not valid.",
    "type": "authentication_error",
    "param": None,
    "code": "invalid_api_key",
}


def make_key(client: TestClient, **fields: object) -> dict[str, Any]:
    made = client.post("/v1/api_keys", json={"name": "laptop", **fields})
    assert made.status_code == 201, made.text
    body: dict[str, Any] = made.json()
    return body


def set_key(api: Api, key_id: str, **values: int) -> None:
    with session_scope(api.platform) as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(**values))
    recent.forget(key_id)  # as a second later


def test_a_key_made_by_an_admin_opens_the_door(api_everywhere: Api) -> None:
    body = make_key(api_everywhere.client, scopes=["read"])
    assert body["object"] == "api_key" and body["scopes"] == ["read"] and body["revoked_at"] is None
    assert client_of(api_everywhere.app, body["key"]).get("/v1/projects").status_code == 200


def test_the_secret_is_shown_once_and_kept_nowhere(api: Api) -> None:
    body = make_key(api.client)
    read = api.client.get(f"/v1/api_keys/{body['id']}").json()
    assert read["key"] is None
    hidden = body["key"].rpartition("_")[2][:40].encode()
    api.platform.engine.dispose()
    assert all(hidden not in path.read_bytes() for path in api.platform.settings.data_dir.glob("groundwork.db*"))


def test_a_replayed_create_shows_the_same_key_without_its_secret(api: Api) -> None:
    headers = {"Idempotency-Key": "make-one"}
    first = api.client.post("/v1/api_keys", json={"name": "laptop"}, headers=headers).json()
    again = api.client.post("/v1/api_keys", json={"name": "laptop"}, headers=headers).json()
    assert again == {**first, "key": None}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Basic dXNlcjpwYXNz")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer gw_nonsense")],
        [("Authorization", "Bearer " + "x" * 5000)],
        [("Authorization", "Bearer gw_\xff")],
    ],
)
def test_what_is_not_a_key_is_refused_alike(api: Api, headers: list[tuple[str, str]]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = api.anonymous.get("/v1/projects", headers=raw)
    assert answer.status_code == 401 and answer.json() == {"error": REFUSED}
    assert answer.headers["www-authenticate"] == "Bearer"


def test_bad_checksum_unknown_wrong_revoked_and_expired_keys_get_the_identical_401(api: Api) -> None:
    revoked, expired = make_key(api.client), make_key(api.client)
    api.client.delete(f"/v1/api_keys/{revoked['id']}")
    set_key(api, expired["id"], expires_ms=1)
    unknown = secret.key_text("key_" + "0" * 26, secret.new_secret())
    wrong = secret.key_text(make_key(api.client)["id"], secret.new_secret())
    right = make_key(api.client)["key"]
    typos = [right[:-1] + "!", right[:-1] + ("0" if right[-1] != "0" else "1")]
    keys = [revoked["key"], expired["key"], unknown, wrong, *typos]
    answers = [client_of(api.app, key).get("/v1/projects") for key in keys]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert answers[0].json() == {"error": REFUSED}


def test_two_authorization_headers_are_refused(api: Api) -> None:
    key = api.client.headers["authorization"]
    twice = [(b"authorization", key.encode()), (b"authorization", key.encode())]
    assert api.anonymous.get("/v1/projects", headers=twice).status_code == 401


def test_a_key_in_the_query_opens_nothing(api: Api) -> None:
    key = api.client.headers["authorization"].removeprefix("Bearer ")
    assert api.anonymous.get("/v1/projects", params={"api_key": key}).status_code in {401, 422}
    assert api.anonymous.get("/v1/projects", params={"after": key}).status_code == 401


def test_bearer_may_be_written_in_lower_case(api: Api) -> None:
    key = api.client.headers["authorization"].removeprefix("Bearer ")
    assert api.anonymous.get("/v1/projects", headers={"Authorization": f"bearer {key}"}).status_code == 200


def test_a_key_without_the_scope_gets_403(api: Api) -> None:
    answer = api.with_scopes("read", "write").post("/v1/api_keys", json={"name": "more"})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "insufficient_scope"


def test_another_projects_key_is_answered_exactly_like_a_missing_one(api: Api) -> None:
    mine = make_key(api.client)["id"]
    missing = mine[:-4] + "0000"
    for method in ("get", "delete"):
        foreign = getattr(api.stranger, method)(f"/v1/api_keys/{mine}")
        absent = getattr(api.stranger, method)(f"/v1/api_keys/{missing}")
        assert foreign.status_code == absent.status_code == 404
        assert foreign.text.replace(mine, missing) == absent.text


def test_rotation_lets_both_keys_work_until_the_overlap_ends(api: Api) -> None:
    old = make_key(api.client, scopes=["read"])
    new = api.client.post(f"/v1/api_keys/{old['id']}/rotate", json={"overlap_seconds": 3600}).json()
    assert new["scopes"] == ["read"] and new["id"] != old["id"]
    works = [client_of(api.app, each["key"]).get("/v1/projects").status_code for each in (old, new)]
    set_key(api, old["id"], expires_ms=int(time.time() * 1000) - 1)
    assert works == [200, 200]
    assert client_of(api.app, old["key"]).get("/v1/projects").status_code == 401


def test_a_key_that_another_process_revokes_opens_nothing_a_second_later(api: Api) -> None:
    made = make_key(api.client, scopes=["read"])
    client = client_of(api.app, made["key"])
    assert client.get("/v1/projects").status_code == 200
    with session_scope(api.platform) as session:
        session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(revoked_ms=1))
    end = time.monotonic() + recent.SECONDS + 0.1
    while client.get("/v1/projects").status_code == 200:
        assert time.monotonic() < end, "still good after a second"
        time.sleep(0.05)
    assert client.get("/v1/projects").status_code == 401


def test_a_key_revoked_here_is_forgotten_at_once(api: Api) -> None:
    made = make_key(api.client, scopes=["read"])
    client = client_of(api.app, made["key"])
    assert client.get("/v1/projects").status_code == 200
    assert api.client.delete(f"/v1/api_keys/{made['id']}").status_code == 200
    assert client.get("/v1/projects").status_code == 401


def test_a_key_that_soon_expires_is_not_remembered_for_longer(api: Api) -> None:
    made = make_key(api.client, scopes=["read"])
    set_key(api, made["id"], expires_ms=int(time.time() * 1000) + 300)
    client = client_of(api.app, made["key"])
    assert client.get("/v1/projects").status_code == 200
    time.sleep(0.4)
    assert client.get("/v1/projects").status_code == 401


def test_a_revoked_key_cannot_be_rotated(api: Api) -> None:
    key = make_key(api.client)["id"]
    assert api.client.delete(f"/v1/api_keys/{key}").json() == {"id": key, "object": "api_key", "deleted": True}
    answer = api.client.post(f"/v1/api_keys/{key}/rotate", json={})
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "invalid_state"


def test_the_last_admin_key_cannot_be_revoked(api_everywhere: Api) -> None:
    client = api_everywhere.client
    (own,) = client.get("/v1/api_keys").json()["data"]
    answer = client.delete(f"/v1/api_keys/{own['id']}")
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "last_admin_key"
    make_key(client, scopes=["admin"])
    assert client.delete(f"/v1/api_keys/{own['id']}").status_code == 200


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"name": ""}, "name", "out_of_range"),
        ({"name": 7}, "name", "type_error"),
        ({"name": "a", "scopes": ["root"]}, "scopes.0", "invalid_value"),
        ({"name": "a", "scopes": []}, "scopes", "out_of_range"),
        ({"name": "a", "expires_at": 1}, "expires_at", "out_of_range"),
        ({"name": "a", "project_id": "proj_x"}, "project_id", "unknown_field"),
        ({}, "name", "missing_field"),
    ],
)
def test_a_bad_field_of_a_key_is_named(api: Api, fields: dict[str, object], param: str, code: str) -> None:
    answer = api.client.post("/v1/api_keys", json=fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (422, param, code), error


def test_only_admins_of_the_first_project_make_projects(api: Api) -> None:
    answer = api.stranger.post("/v1/projects", json={"name": "third"})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "insufficient_scope"


def test_a_new_project_comes_with_a_working_admin_key_and_sees_only_itself(api_everywhere: Api) -> None:
    made = api_everywhere.client.post("/v1/projects", json={"name": "third"}).json()
    inside = client_of(api_everywhere.app, made["api_key"]["key"])
    assert [project["id"] for project in inside.get("/v1/projects").json()["data"]] == [made["id"]]
    assert inside.get(f"/v1/projects/{api_everywhere.project_id}").status_code == 404
    assert len(api_everywhere.client.get("/v1/projects").json()["data"]) == 3


def test_bootstrap_makes_one_working_key_and_only_on_an_empty_database(tmp_path: Path) -> None:
    settings = make_settings("", tmp_path)
    migrate(settings)
    text = bootstrap(settings)
    assert text is not None and secret.parse(text) is not None
    assert bootstrap(settings) is None


def test_the_keyed_hash_is_all_the_database_holds(api: Api) -> None:
    body = make_key(api.client)
    parsed = secret.parse(body["key"])
    assert parsed is not None
    with read_scope(api.platform) as session:
        row = session.scalar(select(ApiKey).where(ApiKey.id == body["id"]))
    server_secret = api.platform.settings.secret_key.get_secret_value()
    assert row is not None and row.secret_hash == secret.keyed_hash(parsed[1], server_secret)


def test_a_typo_anywhere_in_a_key_is_seen_without_the_database() -> None:
    text = secret.key_text("key_" + "a" * 26, secret.new_secret())
    for place in range(3, len(text)):
        wrong = "1" if text[place] != "1" else "2"
        assert secret.parse(text[:place] + wrong + text[place + 1 :]) is None
