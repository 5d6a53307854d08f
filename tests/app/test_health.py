"""Alive, ready, measured; and what a caller sees when the database is down, locked or gone (R34, F8, F9, F10)."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import Api, make_settings, serve
from tests.services import TEMPLATE, Postgres, Valkey


def parts(api: Api) -> tuple[int, dict[str, str]]:
    answer = api.anonymous.get("/readyz")
    return answer.status_code, {name: part["status"] for name, part in answer.json()["parts"].items()}


def test_a_living_process_says_so_without_a_key(shared_api: Api) -> None:
    answer = shared_api.anonymous.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_the_bare_address_says_where_things_are(shared_api: Api) -> None:
    told = shared_api.anonymous.get("/")
    assert told.status_code == 200 and told.json()["docs"] == "/docs"


def test_a_ready_process_tells_its_parts_apart(api_everywhere: Api) -> None:
    assert parts(api_everywhere) == (200, {"database": "ok", "store": "ok", "broker": "ok"})


def test_a_broker_that_is_up_is_ok_and_one_that_is_down_only_degrades(
    sqlite_url: str, tmp_path: Path, valkey: Valkey
) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, broker_url=valkey.url)):
        assert parts(api) == (200, {"database": "ok", "store": "ok", "broker": "ok"})
        valkey.kill()
        assert parts(api) == (200, {"database": "ok", "store": "ok", "broker": "degraded"})


def test_too_little_disk_is_not_ready_and_names_the_part(sqlite_url: str, tmp_path: Path) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, min_free_bytes=2**60)):
        answer = api.anonymous.get("/readyz")
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == "not_ready" and "store" in answer.json()["error"]["message"]
        assert answer.json()["parts"]["store"]["status"] == "failed"


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.make_template()
    yield server
    server.stop()


def test_a_killed_database_gets_503_and_comes_back_without_a_restart(own_postgres: Postgres, tmp_path: Path) -> None:
    for api in serve(make_settings(own_postgres.create(TEMPLATE), tmp_path)):
        assert api.client.get("/v1/projects").status_code == 200
        own_postgres.kill()
        for answer in (api.client.get("/v1/projects"), api.client.post("/v1/projects", json={"name": "a"})):
            assert answer.status_code == 503 and answer.headers["retry-after"] == "2"
            assert answer.json()["error"]["code"] == "database_unavailable"
        assert parts(api)[1]["database"] == "failed"
        own_postgres.start()
        # A connection from before may show itself once more; then the pool drops all of its age.
        answers = [api.client.get("/v1/projects").status_code for _ in range(5)]
        assert answers in ([200] * 5, [503] + [200] * 4)
        assert parts(api)[0] == 200


def test_an_application_starts_while_its_database_is_down(own_postgres: Postgres, tmp_path: Path) -> None:
    from app.main import create_app
    from tests.app.conftest import client_of

    url = own_postgres.create(TEMPLATE)
    own_postgres.kill()
    with client_of(create_app(make_settings(url, tmp_path))) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        own_postgres.start()
        assert client.get("/readyz").status_code == 200


def test_a_locked_sqlite_file_lets_reads_through_and_answers_writes_with_503(api: Api) -> None:
    path = api.platform.settings.database.removeprefix("sqlite:///")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        began = time.monotonic()
        assert api.client.get("/v1/projects").status_code == 200
        assert time.monotonic() - began < 4, "a read that waits for the lock takes five seconds"
        answer = api.client.post("/v1/projects", json={"name": "a"})
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "database_unavailable"
        assert "locked" not in answer.text
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert api.client.post("/v1/projects", json={"name": "a"}).status_code == 201


def test_metrics_carry_route_templates_and_never_ids_or_unknown_paths(api: Api) -> None:
    key = api.client.get("/v1/api_keys").json()["data"][0]["id"]
    api.client.get(f"/v1/api_keys/{key}")
    api.client.get("/v1/nothing/a-strangers-path")
    api.client.request("BREW", "/v1/projects")
    text = api.anonymous.get("/metrics").text
    labels = r'\{method="GET",route="/v1/api_keys/\{key_id\}",status="2xx"\}'
    assert re.search("groundwork_http_requests_total" + labels, text)
    assert key not in text and "strangers-path" not in text and "BREW" not in text
    assert "process_resident_memory_bytes" in text


def test_each_request_is_one_json_log_line_with_its_id_and_no_secret(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    for api in serve(make_settings(sqlite_url, tmp_path, log_level="INFO")):
        answer = api.client.get("/v1/projects")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
        (line,) = [line for line in lines if line["event"] == "request"]
        assert line["request_id"] == answer.headers["x-request-id"] and line["route"] == "/v1/projects"
        assert line["status"] == 200 and line["level"] == "info"
        assert api.client.headers["authorization"].removeprefix("Bearer ") not in json.dumps(lines)
