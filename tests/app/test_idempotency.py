"""`Idempotency-Key`: replayed, reused, in flight, tenants apart, durable with the work itself (B15, F1)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.auth.tables import Project
from app.db import after_commit
from app.edge import add_routes
from app.errors import Conflict
from app.idempotency import KEPT_MS, KeptReply, Repeatable, forget_expired, keep
from app.platform import Platform, read_scope, session_scope
from tests.app import probe
from tests.app.conftest import Api, make_settings, serve


@pytest.fixture
def named(api_everywhere: Api) -> Api:
    add_routes(api_everywhere.app, probe.router)
    return api_everywhere


def send(api: Api, key: str, name: str = "a", path: str = "/v1/named") -> httpx2.Response:
    return api.client.post(path, json={"name": name}, headers={"Idempotency-Key": key})


def projects(platform: Platform) -> int:
    with read_scope(platform) as session:
        return session.scalar(select(func.count()).select_from(Project)) or 0


def test_the_same_key_and_body_replay_the_reply_and_do_the_work_once(named: Api) -> None:
    before = projects(named.platform)
    first, again = send(named, "k1"), send(named, "k1")
    assert first.status_code == again.status_code == 200 and first.content == again.content
    assert again.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert projects(named.platform) == before + 1


def test_another_body_under_the_same_key_gets_422(named: Api) -> None:
    send(named, "k1", "a")
    error = send(named, "k1", "b")
    assert error.status_code == 422 and error.json()["error"]["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("key", ["", "x" * 300, "caf\u00e9", "a\tb"])
def test_a_key_that_is_no_key_gets_400(shared_api: Api, key: str) -> None:
    headers = [(b"idempotency-key", key.encode())]
    answer = shared_api.client.post("/v1/projects", json={"name": "a"}, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_idempotency_key"


def test_another_projects_key_is_a_new_one(api: Api) -> None:
    headers = {"Idempotency-Key": "shared"}
    mine = api.client.post("/v1/api_keys", json={"name": "a"}, headers=headers)
    theirs = api.stranger.post("/v1/api_keys", json={"name": "b"}, headers=headers)
    assert mine.status_code == theirs.status_code == 201 and mine.json()["id"] != theirs.json()["id"]


def test_the_same_key_on_another_path_is_a_new_one(named: Api) -> None:
    assert send(named, "k1").status_code == 200
    answer = named.client.post("/v1/streamed", content=b"abc", headers={"Idempotency-Key": "k1"})
    assert answer.status_code == 201 and answer.json()["size"] == 3


def test_copies_sent_at_once_do_the_work_once(named: Api) -> None:
    before = projects(named.platform)
    barrier = threading.Barrier(4)

    def one(_: int) -> httpx2.Response:
        barrier.wait()
        return send(named, "k1")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, range(4)))
    assert projects(named.platform) == before + 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert {answer.json()["error"]["code"] for answer in answers if answer.status_code == 409} <= {
        "idempotency_in_flight"
    }
    assert send(named, "k1").headers["idempotency-replayed"] == "true"


def test_a_copy_in_flight_gets_409_and_is_told_to_retry(api: Api) -> None:
    mark = (api.project_id, "/v1/projects", "k1")
    api.app.state.in_flight.add(mark)
    answer = api.client.post("/v1/projects", json={"name": "a"}, headers={"Idempotency-Key": "k1"})
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "idempotency_in_flight"
    assert answer.headers["retry-after"] == "1" and "x-should-retry" not in answer.headers
    api.app.state.in_flight.discard(mark)
    assert api.client.post("/v1/projects", json={"name": "a"}, headers={"Idempotency-Key": "k1"}).status_code == 201


def test_two_processes_cannot_both_commit_under_one_key(everywhere: Platform) -> None:
    asked = Repeatable("p", "/v1/x", "k", "")
    with session_scope(everywhere) as session:
        keep(session, asked, 200, b"{}")
    with pytest.raises(Exception, match=r"(?i)unique"), session_scope(everywhere) as session:
        session.add(Project(id="proj_lost", name="lost", created_ms=1))
        keep(session, asked, 200, b"{}")
    with read_scope(everywhere) as session:
        assert session.get(Project, "proj_lost") is None


def test_a_request_that_failed_keeps_nothing_and_may_be_repeated(named: Api) -> None:
    before = projects(named.platform)
    wrong = named.client.post("/v1/named", json={"id": named.project_id, "name": "a"}, headers={"Idempotency-Key": "k"})
    right = named.client.post("/v1/named", json={"name": "a"}, headers={"Idempotency-Key": "k"})
    assert wrong.status_code == 500 and right.status_code == 200 and projects(named.platform) == before + 1


def test_a_streamed_post_is_kept_in_the_transaction_of_its_own_work(named: Api) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = named.client.post("/v1/streamed", content=b"abc", headers=headers)
    again = named.client.post("/v1/streamed", content=b"abc", headers=headers)
    other = named.client.post("/v1/streamed", content=b"abcd", headers=headers)
    assert first.status_code == 201 and first.content == again.content
    assert other.status_code == 422 and other.json()["error"]["code"] == "idempotency_key_reused"


FORMS = {
    "/v1/datasets": ("file", {"name": "pool"}),
    "/v1/files": ("file", {"purpose": "pretrain"}),
}


@pytest.mark.parametrize("path", FORMS)
def test_a_form_is_repeated_only_with_the_same_file(api: Api, path: str) -> None:
    name, fields = FORMS[path]

    def upload(content: bytes, filename: str = "a.txt", **changed: str) -> httpx2.Response:
        file = {name: (filename, content)}
        return api.client.post(path, data=fields | changed, files=file, headers={"Idempotency-Key": "k1"})

    first, again = upload(b"one\n"), upload(b"one\n")
    assert first.status_code in (200, 201) and first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    for other in (upload(b"two\n"), upload(b"one\n", "b.txt"), upload(b"one\n", name="pond", purpose="batch")):
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert len(api.client.get("/v1/datasets").json()["data"]) == 1


def test_a_part_is_repeated_only_with_the_same_bytes(api: Api) -> None:
    begun = {"filename": "a.txt", "bytes": 8, "purpose": "pretrain", "mime_type": "text/plain"}
    url = f"/v1/uploads/{api.client.post('/v1/uploads', json=begun).json()['id']}/parts"
    headers = {"Idempotency-Key": "k1"}
    first, again, other = (
        api.client.post(url, files={"data": content}, headers=headers) for content in (b"one\n", b"one\n", b"two\n")
    )
    assert first.status_code == 200 and first.content == again.content
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_a_repeated_form_over_the_cap_is_cut_off(sqlite_url: str, tmp_path: Path) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, max_upload_bytes=1000)):
        headers = {"Idempotency-Key": "k1"}
        api.client.post("/v1/datasets", files={"file": ("a.txt", b"one\n")}, headers=headers)
        huge = api.client.post("/v1/datasets", files={"file": ("a.txt", b"x" * 2_000_000)}, headers=headers)
        assert (huge.status_code, huge.json()["error"]["code"]) == (413, "too_large")


def test_a_kept_reply_is_forgotten_after_a_day(named: Api) -> None:
    first = send(named, "k1").json()["id"]
    with session_scope(named.platform) as session:
        session.execute(update(KeptReply).values(created_ms=KeptReply.created_ms - KEPT_MS - 1))
    second = send(named, "k1").json()["id"]
    with session_scope(named.platform) as session:
        session.execute(update(KeptReply).values(created_ms=KeptReply.created_ms - KEPT_MS - 1))
        assert second != first and forget_expired(session) == 1


def test_a_failed_commit_answers_an_error_and_rings_nothing(named: Api) -> None:
    probe.rung.clear()
    answer = named.client.post("/v1/named", json={"id": named.project_id, "name": "a"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    good = named.client.post("/v1/named", json={"name": "a"}).json()["id"]
    assert probe.rung == [good]


def test_a_ring_that_fails_leaves_the_committed_work_alone(everywhere: Platform) -> None:
    rung: list[int] = []

    def broken() -> None:
        raise ConnectionError("the broker is down")

    with session_scope(everywhere) as session:
        session.add(Project(id="proj_kept", name="kept", created_ms=1))
        after_commit(session, broken)
        after_commit(session, lambda: rung.append(1))
    with read_scope(everywhere) as session:
        assert session.get(Project, "proj_kept") is not None and rung == [1]


def test_the_conflict_of_a_business_rule_says_not_to_retry() -> None:
    assert Conflict("invalid_state", "no").headers == {"x-should-retry": "false"}
