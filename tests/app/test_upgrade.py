"""A database of the first schema, with data in every table that matters, brought up to date: nothing is lost (R21)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import MetaData, select, text

from app.db import make_engine
from app.main import create_app
from app.migrate import alembic_config, check_schema, migrate, revisions
from app.platform import Platform
from app.settings import Settings
from tests.app import registered
from tests.app.conftest import client_of, fill, make_settings
from tests.app.jobs_world import Worker, message_event, metrics_event, pretrain_body, ready_dataset
from tests.groundwork.serving import run
from tests.model_folders import text_model

FIRST = revisions()[0]
Rows = dict[str, list[dict[str, Any]]]


def at_revision(settings: Settings, revision: str) -> None:
    engine = make_engine(settings.database)
    with engine.connect() as connection:
        command.downgrade(alembic_config(connection), revision)
        connection.commit()
    engine.dispose()


def rows(settings: Settings, like: Rows | None = None) -> Rows:
    """Every row of every table in the order of its key; only of those tables and columns that `like` has."""
    engine, schema = make_engine(settings.database), MetaData()
    schema.reflect(engine)
    found: Rows = {}
    with engine.connect() as connection:
        for name, table in schema.tables.items():
            if name == "alembic_version" or (like is not None and name not in like):
                continue
            known = like[name][0].keys() if like is not None and like[name] else [column.name for column in table.c]
            query = select(*(table.c[column] for column in known)).order_by(*table.primary_key.columns)
            found[name] = [dict(row) for row in connection.execute(query).mappings()]
    engine.dispose()
    return found


class Old:
    """A database of the first schema with a key, a model, a dataset, a job that is running and one that waits."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        platform = Platform.open(settings)
        self.project, self.key, *_ = fill(platform)
        self.model = registered.model(platform, self.project, text_model(folder / "model"))
        self.dataset = ready_dataset(platform, self.project)
        platform.close()
        app = create_app(settings)
        with client_of(app, self.key) as client:
            body = pretrain_body(self.dataset)
            self.running = client.post("/v1/jobs", json=body).json()["id"]
            self.waiting = client.post("/v1/jobs", json={**body, "seed": 2}).json()["id"]
            worker = Worker(client_of(app))
            ticket = worker.claim(self.running)
            assert ticket is not None
            self.ticket = ticket
            events = [metrics_event(1, 1, **{"train/loss": 2.5}), message_event(2, "hello", 1)]
            assert worker.post(ticket, "events", events=events).status_code == 200
            assert worker.post(ticket, "logs", offset=0, text="a line\n").status_code == 200
        at_revision(settings, FIRST)


@pytest.fixture
def old(database_url: str, tmp_path: Path) -> Iterator[Old]:
    """On each database engine in turn."""
    yield Old(make_settings(database_url, tmp_path), tmp_path)


def test_every_row_of_the_first_schema_is_there_after_the_upgrade(old: Old) -> None:
    before = rows(old.settings)
    filled = {name for name, found in before.items() if found}
    assert {"projects", "api_keys", "datasets", "models", "jobs", "attempts", "job_events", "metric_points"} <= filled
    assert "log_chunks" in filled and "traceparent" not in before["jobs"][0]
    migrate(old.settings)
    check_schema(old.settings)
    assert rows(old.settings, before) == before


def test_the_api_serves_what_was_there_and_a_running_job_goes_on(old: Old) -> None:
    migrate(old.settings)
    app = create_app(old.settings)
    with client_of(app, old.key) as client:
        assert client.get(f"/v1/datasets/{old.dataset}").json()["status"] == "ready"
        assert client.get(f"/v1/models/{old.model}/download").content[:2] == b"PK"
        series = client.get(f"/v1/jobs/{old.running}/metrics").json()["series"]
        assert [(each["name"], each["values"]) for each in series] == [("train/loss", [2.5])]
        worker = Worker(client_of(app))
        assert worker.post(old.ticket, "heartbeat").json()["command"] is None, "an old worker at a new API"
        assert worker.post(old.ticket, "release", reason="drain").json() == {"status": "queued"}
        taken = worker.claim(old.waiting)
        assert taken is not None and taken["fence"] == 1
        assert client.post("/v1/jobs", json=pretrain_body(old.dataset, seed=3)).status_code == 201


def test_an_api_does_not_start_on_the_old_schema_nor_on_one_too_new_for_it(sqlite_url: str, tmp_path: Path) -> None:
    old = Old(make_settings(sqlite_url, tmp_path), tmp_path)
    given = {"database_url": old.settings.database, "data_dir": str(tmp_path), "port": "0"}
    given |= {"secret_key": "s" * 32, "worker_token": "t" * 32}
    done = run("api", **given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "run `groundwork migrate` first" in done.stderr
    migrate(old.settings)
    engine = make_engine(old.settings.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE schema_floor SET revision = '9999'"))
    engine.dispose()
    done = run("api", **given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "newer than this program" in done.stderr
