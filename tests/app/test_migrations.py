"""The schema: up, down and up again on both engines, equal to the models, under a lock, never newer (R21)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from app.db import make_engine
from app.migrate import SchemaError, alembic_config, check_schema, head, migrate, revisions
from app.schema import metadata
from app.settings import Settings
from tests.app.conftest import ROOT, environment, make_settings
from tests.services import FLOOR


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings over an empty database, on each engine in turn."""
    if request.param == "sqlite":
        yield make_settings("", tmp_path)
        return
    server = request.getfixturevalue("postgres")
    url = server.create()
    yield make_settings(url, tmp_path)
    server.drop(url)


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True, "render_as_batch": True}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def tables(settings: Settings) -> set[str]:
    engine = make_engine(settings.database)
    found = set(inspect(engine).get_table_names())
    engine.dispose()
    return found


def test_an_empty_database_is_brought_up_to_the_models(empty: Settings) -> None:
    migrate(empty)
    check_schema(empty)
    engine = make_engine(empty.database)
    with engine.connect() as connection:
        assert differences(connection) == []
    engine.dispose()
    assert tables(empty) == set(metadata.tables) | {"alembic_version"}


def test_the_comparison_would_see_a_forgotten_migration(empty: Settings) -> None:
    migrate(empty)
    engine = make_engine(empty.database)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE projects ADD COLUMN forgotten INTEGER"))
        connection.execute(text("DROP INDEX ix_api_keys_project_id"))
        assert len(differences(connection)) == 2
    engine.dispose()


def test_it_goes_down_to_nothing_and_up_again(empty: Settings) -> None:
    migrate(empty)
    engine = make_engine(empty.database)
    with engine.connect() as connection:
        command.downgrade(alembic_config(connection), "base")
        connection.commit()
    assert tables(empty) == {"alembic_version"}
    engine.dispose()
    migrate(empty)
    assert tables(empty) == set(metadata.tables) | {"alembic_version"}


def test_a_second_run_changes_nothing(empty: Settings) -> None:
    migrate(empty)
    engine = make_engine(empty.database)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO projects (id, name, root, created_ms) VALUES ('p', 'kept', true, 1)"))
    migrate(empty)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM projects")).scalar_one() == "kept"
    engine.dispose()


def test_several_at_once_wait_for_one_another(empty: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(empty), range(4)))
    check_schema(empty)


def test_several_processes_at_once_wait_for_one_another(tmp_path: Path) -> None:
    settings = make_settings("", tmp_path)
    code = "from app.migrate import migrate; from app.settings import get_settings; migrate(get_settings())"
    command_line, variables = [sys.executable, "-c", code], environment(settings)
    running = [subprocess.Popen(command_line, cwd=ROOT, env=variables, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 0, errors.decode()
    check_schema(settings)


def test_an_empty_database_is_told_to_migrate(empty: Settings) -> None:
    with pytest.raises(SchemaError, match="has no schema; run `groundwork migrate`"):
        check_schema(empty)


def test_a_newer_schema_that_still_takes_this_program_is_served_and_left_alone(empty: Settings) -> None:
    migrate(empty)
    engine = make_engine(empty.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    check_schema(empty)
    migrate(empty)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
        assert connection.execute(text("SELECT revision FROM schema_floor")).scalar_one() == FLOOR
    engine.dispose()


def test_the_template_of_the_tests_has_the_floor_of_the_migrations(sqlite_url: str, empty: Settings) -> None:
    migrate(empty)
    floors = []
    for url in (sqlite_url, empty.database):
        engine = make_engine(url)
        with engine.connect() as connection:
            floors.append(connection.execute(text("SELECT revision FROM schema_floor")).scalar_one())
        engine.dispose()
    assert floors == [FLOOR, FLOOR]


@pytest.mark.parametrize("floor", ["9998", None])
def test_a_newer_schema_is_refused_and_left_alone(empty: Settings, floor: str | None) -> None:
    migrate(empty)
    engine = make_engine(empty.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        told = f"UPDATE schema_floor SET revision = '{floor}'" if floor else "DROP TABLE schema_floor"
        connection.execute(text(told))
    for act in (check_schema, migrate):
        with pytest.raises(SchemaError, match="9999 is newer than this program"):
            act(empty)
    engine.dispose()


def test_a_sqlite_file_is_copied_before_its_schema_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings("", tmp_path)
    migrate(settings)
    file = tmp_path / "groundwork.db"
    open_writer = sqlite3.connect(file)
    open_writer.execute("INSERT INTO projects (id, name, root, created_ms) VALUES ('p', 'in the log', 1, 1)")
    open_writer.commit()
    # As if this program knew one revision more than the file has.
    monkeypatch.setattr("app.migrate.head", lambda: "9999")
    migrate(settings)
    with sqlite3.connect(tmp_path / f"groundwork.db.before-{head()}") as copy:
        assert copy.execute("SELECT name FROM projects").fetchone() == ("in the log",)
    copy.close()
    open_writer.close()


def test_revisions_are_numbered_without_a_gap_and_alembic_agrees() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        config: Config = alembic_config(connection)
    script = ScriptDirectory.from_config(config)
    assert revisions() == [f"{number:04}" for number in range(1, len(revisions()) + 1)]
    assert [found.revision for found in script.walk_revisions()][::-1] == revisions()
    assert script.get_current_head() == head()
