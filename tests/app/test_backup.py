"""Backup and restore of each database with its store: what was there is there again, bytes, keys and jobs."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from pydantic import SecretStr

from app.backup import backup, restore
from app.dumps import BackupError
from app.platform import Platform
from app.settings import Settings
from tests.app import registered
from tests.app.conftest import client_of, fill, make_settings
from tests.app.jobs_world import Worker, pretrain_body, ready_dataset
from tests.model_folders import text_model
from tests.services import S3, Postgres


@dataclass
class Installation:
    """A platform with data in it, and settings of an empty one of the same kind."""

    settings: Settings
    empty: Settings
    key: str
    model: str
    dataset: str
    running: str

    def backup(self, target: Path) -> int:
        platform = Platform.open(self.settings)
        try:
            return backup(platform, target).copied
        finally:
            platform.close()


def filled(settings: Settings, empty: Settings, folder: Path) -> Installation:
    """A key, a model, a dataset, and a job that a worker holds."""
    from app.main import create_app

    platform = Platform.open(settings)
    project, key, *_ = fill(platform)
    model = registered.model(platform, project, text_model(folder / "model"))
    dataset = ready_dataset(platform, project)
    platform.close()
    app = create_app(settings)
    with client_of(app, key) as client:
        job = client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"]
        assert Worker(client_of(app)).claim(job) is not None
    return Installation(settings, empty, key, model, dataset, job)


def places(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Settings, Settings]]:
    if kind == "sqlite":
        url: str = request.getfixturevalue("sqlite_url")
        yield make_settings(url, folder / "old"), make_settings("", folder / "new")
        return
    server: Postgres = request.getfixturevalue("postgres")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("PATH", f"{server.binaries}{os.pathsep}{os.environ['PATH']}")
    store, empty = S3(), server.create()
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    for bucket in ("old", "new"):
        boto3.client("s3", endpoint_url=store.url, region_name="us-east-1").create_bucket(Bucket=bucket)
    old = make_settings(request.getfixturevalue("postgres_url"), folder, store_url="s3://old/prefix")
    yield old, make_settings(empty, folder, store_url="s3://new")
    server.drop(empty)
    store.stop()


@pytest.fixture(params=["sqlite", "postgresql and S3"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """On each kind of installation in turn."""
    for old, new in places(request.param, request, tmp_path):
        yield filled(old, new, tmp_path)


@pytest.fixture
def embedded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """On SQLite."""
    for old, new in places("sqlite", request, tmp_path):
        yield filled(old, new, tmp_path)


def test_after_a_restore_keys_work_models_are_whole_and_the_running_job_is_queued(
    installation: Installation, tmp_path: Path
) -> None:
    from app.main import create_app

    installation.backup(tmp_path / "backup")
    done = restore(installation.empty, tmp_path / "backup")
    assert done.requeued == 1 and done.copied == done.objects > 3
    app = create_app(installation.empty)
    with client_of(app, installation.key) as client:
        archive = client.get(f"/v1/models/{installation.model}/download").content
        with zipfile.ZipFile(io.BytesIO(archive)) as read:
            found = {name: read.read(name) for name in read.namelist()}
        trained = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
        assert "model.safetensors" in trained and trained.keys() - found.keys() <= {"manifest.json"}
        assert all(found[name] == content for name, content in trained.items() if name != "manifest.json")
        assert client.get(f"/v1/datasets/{installation.dataset}").json()["status"] == "ready"
        assert client.get(f"/v1/jobs/{installation.running}").json()["status"] == "queued"
        ticket = Worker(client_of(app)).claim(installation.running)
        assert ticket is not None and ticket["fence"] == 2


def test_a_second_backup_into_the_same_folder_copies_what_is_new_and_drops_what_is_gone(
    embedded: Installation, tmp_path: Path
) -> None:
    target, store = tmp_path / "backup", Platform.open(embedded.settings).store
    first = embedded.backup(target)
    gone = next(key for key, _ in store.list("jobs"))
    store.delete(gone)
    store.put("datasets/ds_new/upload", b"new")
    assert first > 1 and embedded.backup(target) == 1
    kept = [file["path"] for file in json.loads((target / "manifest.json").read_text())["objects"]]
    assert "datasets/ds_new/upload" in kept and gone not in kept
    assert not (target / "store" / gone).exists()


def test_an_object_that_goes_while_it_is_copied_has_the_database_copied_again(
    embedded: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import app.backup as module

    store, dumps, real = Platform.open(embedded.settings).store, [], module.dump
    victim = next(key for key, _ in store.list("datasets"))

    def dumped(database: str, target: Path) -> None:
        real(database, target)
        dumps.append(target)
        store.delete(victim)

    monkeypatch.setattr(module, "dump", dumped)
    embedded.backup(tmp_path / "backup")
    assert len(dumps) == 2


def test_a_backup_that_was_not_finished_is_refused_and_can_be_taken_again(
    embedded: Installation, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    embedded.backup(target)
    (target / "manifest.json").unlink()
    with pytest.raises(BackupError, match="not finished"):
        restore(embedded.empty, target)
    embedded.backup(target)
    assert restore(embedded.empty, target).requeued == 1


def test_a_folder_with_something_else_in_it_is_left_alone(embedded: Installation, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(BackupError, match="holds no backup"):
        embedded.backup(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_database_with_something_in_it_is_never_written_over(installation: Installation, tmp_path: Path) -> None:
    installation.backup(tmp_path / "backup")
    with pytest.raises(BackupError, match="not empty"):
        restore(installation.settings, tmp_path / "backup")


def test_another_key_of_the_keys_is_refused_before_anything_is_written(embedded: Installation, tmp_path: Path) -> None:
    embedded.backup(tmp_path / "backup")
    other = embedded.empty.model_copy(update={"secret_key": SecretStr("another-secret-key-entirely")})
    with pytest.raises(BackupError, match="SECRET_KEY is not the one"):
        restore(other, tmp_path / "backup")
    assert not list(Path(other.data_dir).rglob("*"))


@pytest.mark.parametrize("name", ["groundwork.db", "an object"])
def test_a_damaged_backup_is_refused(name: str, embedded: Installation, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    embedded.backup(target)
    first = json.loads((target / "manifest.json").read_text())["objects"][0]["path"]
    damaged = target / (name if name == "groundwork.db" else f"store/{first}")
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:] + b"x")
    with pytest.raises(BackupError, match="is damaged"):
        restore(embedded.empty, target)
    assert not (Path(embedded.empty.data_dir) / "groundwork.db").exists()


def test_a_restore_that_was_killed_goes_on_where_it_was(embedded: Installation, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    embedded.backup(target)
    missing = json.loads((target / "manifest.json").read_text())["objects"][-1]["path"]
    kept = (target / "store" / missing).read_bytes()
    (target / "store" / missing).unlink()
    with pytest.raises(BackupError, match="is missing"):
        restore(embedded.empty, target)
    (target / "store" / missing).write_bytes(kept)
    assert restore(embedded.empty, target).copied == 1


def test_without_the_programs_of_postgresql_it_says_what_is_missing(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform.open(make_settings(postgres_url, tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="pg_dump is not installed"):
        backup(platform, tmp_path / "backup")
    platform.close()
