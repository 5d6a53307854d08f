"""Public models on their way in: what is refused at the door, and uploads that nothing came of are taken away again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select, update

from app.datasets.tables import StorageAccount
from app.ids import made_ms, new_id
from app.jobs.tables import Job
from app.models import imports
from app.models.service import import_key
from app.platform import session_scope
from tests.app.conftest import Api


def send(api: Api, content: bytes = b"PK\x03\x04 whatever", **fields: str) -> Any:
    files = {"file": ("bert.zip", content, "application/zip")}
    return api.client.post("/v1/models", files=files, data=fields)


def waiting(api: Api) -> list[str]:
    return [key for key, _ in api.platform.store.list("imports")]


def used(api: Api) -> int:
    with session_scope(api.platform) as session:
        return session.scalar(select(StorageAccount.used_bytes).where(StorageAccount.project_id == api.project_id)) or 0


def end(api: Api, job_id: str, status: str) -> None:
    with session_scope(api.platform) as session:
        session.execute(update(Job).where(Job.id == job_id).values(status=status))


def test_an_id_tells_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= made_ms(new_id("imp")) <= time.time_ns() // 1_000_000


def test_an_upload_waits_for_its_import_and_takes_room(api: Api) -> None:
    assert send(api, b"PK" * 500).status_code == 201
    assert len(waiting(api)) == 1 and used(api) == 1000
    assert imports.sweep(api.platform) == 0 and len(waiting(api)) == 1


@pytest.mark.parametrize("status", ["failed", "cancelled", "succeeded"])
def test_an_upload_whose_import_has_ended_gives_back_its_room(api: Api, status: str) -> None:
    end(api, send(api).json()["id"], status)
    assert imports.sweep(api.platform) == 1
    assert waiting(api) == [] and used(api) == 0


def test_an_upload_that_no_job_was_made_of_is_taken_away_after_a_day(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = import_key(new_id("imp"))
    api.platform.store.put(fresh, b"a process died behind this")
    then = time.time_ns() - (imports.STRAY_MS + 60_000) * 1_000_000
    with monkeypatch.context() as past:
        past.setattr("app.ids.time.time_ns", lambda: then)
        old = new_id("imp")
    api.platform.store.put(import_key(old), b"and behind this, long ago")
    assert imports.sweep(api.platform) == 1
    assert waiting(api) == [fresh] and used(api) == 0


def test_an_old_upload_whose_import_still_waits_is_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "STRAY_MS", -60_000)
    assert send(api).status_code == 201
    assert imports.sweep(api.platform) == 0 and len(waiting(api)) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"least_share": "0.1"}, "least_share"), ({"colour": "red"}, "colour"), ({"name": ""}, "name")],
)
def test_a_refused_form_leaves_nothing(api: Api, fields: dict[str, str], param: str) -> None:
    reply = send(api, **fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (422, param)
    assert waiting(api) == [] and used(api) == 0


def test_an_empty_file_leaves_nothing(api: Api) -> None:
    reply = send(api, b"")
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "empty")
    assert waiting(api) == [] and used(api) == 0


def test_a_hub_is_refused_where_the_operator_has_not_allowed_it(api: Api) -> None:
    reply = api.client.post("/v1/models", json={"hub": "some/model"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "hub_not_allowed")


@pytest.mark.parametrize("hub", ["", "model", "../model", "a/b/c", "https://hub/a/b", "some/..", "some/model\n"])
def test_what_is_no_repository_is_refused_where_hubs_are_allowed(
    api: Api, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.platform.settings, "allow_hub", True)
    reply = api.client.post("/v1/models", json={"hub": hub})
    assert (reply.status_code, reply.json()["error"]["param"]) == (422, "hub")


def test_a_repository_is_queued_where_hubs_are_allowed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.platform.settings, "allow_hub", True)
    job = api.client.post("/v1/models", json={"hub": "some/model", "revision": "main"}).json()
    assert (job["type"], job["status"]) == ("import", "queued") and waiting(api) == []
