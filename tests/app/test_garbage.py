"""What nobody owns is found, noted, and deleted a day later (R20); what somebody owns never is."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from app import garbage
from app.datasets.tables import Dataset
from app.garbage import StrayObject, collect
from app.platform import Platform, read_scope, session_scope
from tests.app import registered
from tests.app.conftest import Api
from tests.app.jobs_world import Worker, pretrain_body, ready_dataset
from tests.model_folders import text_model

STRAY = {
    "datasets/ds_lost/upload": b"12345", "jobs/job_lost/1/ab/artifact/x": b"123", "models/mdl_lost/native.zip": b"1",
}  # fmt: skip


def keys(platform: Platform) -> set[str]:
    return {key for folder in garbage._FOLDERS for key, _ in platform.store.list(folder)}


def litter(platform: Platform) -> None:
    for key, content in STRAY.items():
        platform.store.put(key, content)


def age(platform: Platform) -> None:
    """A day passes."""
    with session_scope(platform) as session:
        session.execute(update(StrayObject).values(marked_ms=StrayObject.marked_ms - int(garbage.GRACE_SECONDS * 1000)))


def marks(platform: Platform) -> set[str]:
    with read_scope(platform) as session:
        return set(session.scalars(select(StrayObject.key)))


def lived_in(api: Api, folder: Path) -> set[str]:
    """A store in use: a dataset, a model with its archive, a running job with a checkpoint, an open upload."""
    dataset = ready_dataset(api.platform, api.project_id)
    model = registered.model(api.platform, api.project_id, text_model(folder / "model", task=True))
    assert api.client.get(f"/v1/models/{model}/download").status_code == 200
    worker = Worker(api.anonymous)
    ticket = worker.claim(api.client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"])
    assert ticket is not None
    worker.checkpoint(ticket, 1)
    worker.put(ticket, "samples/a.txt", b"a")
    upload = {"filename": "a.txt", "bytes": 5, "mime_type": "text/plain", "purpose": "pretrain"}
    id = api.client.post("/v1/uploads", json=upload).json()["id"]
    assert api.client.post(f"/v1/uploads/{id}/parts", files={"data": ("part", b"hello")}).status_code == 200
    found = keys(api.platform)
    assert {key.split("/")[0] for key in found} == {"datasets", "uploads", "jobs", "models"}
    return found


def test_what_is_owned_stays_and_what_is_not_goes_after_a_day(api_everywhere: Api, tmp_path: Path) -> None:
    platform = api_everywhere.platform
    owned = lived_in(api_everywhere, tmp_path)
    litter(platform)
    first = collect(platform)
    assert (first.objects, first.stray, first.stray_bytes, first.freed) == (len(owned) + 3, 3, 9, 0)
    assert keys(platform) == owned | set(STRAY) and marks(platform) == set(STRAY)
    again = collect(platform)
    assert (again.stray, again.freed) == (3, 0), "the day is not over"
    age(platform)
    tried = collect(platform, dry_run=True)
    assert (tried.freed, tried.freed_bytes) == (3, 9) and keys(platform) == owned | set(STRAY)
    last = collect(platform)
    assert (last.freed, last.freed_bytes) == (3, 9)
    assert keys(platform) == owned and marks(platform) == set()
    assert collect(platform).stray == 0


def test_a_dry_run_on_a_fresh_store_notes_nothing(api: Api) -> None:
    litter(api.platform)
    found = collect(api.platform, dry_run=True)
    assert (found.stray, found.freed) == (3, 0) and marks(api.platform) == set()


def test_bytes_that_get_their_row_within_the_day_survive(api: Api) -> None:
    litter(api.platform)
    collect(api.platform)
    dataset = ready_dataset(api.platform, api.project_id)
    with session_scope(api.platform) as session:
        session.get_one(Dataset, dataset).key = "datasets/ds_lost/upload"
    age(api.platform)
    assert collect(api.platform).freed == 2
    assert api.platform.store.exists("datasets/ds_lost/upload") and "datasets/ds_lost/upload" not in marks(api.platform)


def test_a_pass_that_dies_between_bytes_and_marks_is_finished_by_the_next(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    litter(api.platform)
    collect(api.platform)
    age(api.platform)
    deleted = []

    class Killed(Exception):
        pass

    real = api.platform.store.delete

    def dies(key: str) -> int:
        deleted.append(key)
        if len(deleted) == 2:
            raise Killed
        return real(key)

    monkeypatch.setattr(api.platform.store, "delete", dies)
    with pytest.raises(Killed):
        collect(api.platform)
    monkeypatch.undo()
    assert len(keys(api.platform) & set(STRAY)) == 2 and marks(api.platform) == set(STRAY)
    assert collect(api.platform).freed == 2
    assert not keys(api.platform) & set(STRAY) and marks(api.platform) == set()


def test_deleting_a_dataset_names_the_models_that_saw_it(api: Api) -> None:
    dataset, other = ready_dataset(api.platform, api.project_id), ready_dataset(api.platform, api.project_id, b"other")
    worker = Worker(api.anonymous)
    made = []
    for each in (dataset, other):
        job = api.client.post("/v1/jobs", json=pretrain_body(each)).json()["id"]
        ticket = worker.claim(job)
        assert ticket is not None and worker.complete(ticket).status_code == 200
        made.append(api.client.get(f"/v1/jobs/{job}").json()["result"]["model"])
    reply = api.client.delete(f"/v1/datasets/{dataset}").json()
    assert reply == {"id": dataset, "object": "dataset", "deleted": True, "models": [made[0]]}
    assert api.client.delete(f"/v1/models/{made[1]}").status_code == 200
    assert api.client.delete(f"/v1/datasets/{other}").json()["models"] == []
