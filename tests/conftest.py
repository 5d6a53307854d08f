"""Fixtures every test may use: real databases and a real broker (tests/services.py)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.services import Postgres, Valkey

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for this test process, with a template database that holds every table."""
    from tests.services import Postgres

    server = Postgres()
    server.make_template()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that holds every table."""
    from app.db import make_engine
    from tests.services import make_tables

    path = tmp_path_factory.mktemp("template") / "groundwork.db"
    make_tables(f"sqlite:///{path}")
    engine = make_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
    engine.dispose()
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh SQLite database with every table."""
    shutil.copy(sqlite_template, tmp_path / "groundwork.db")
    return f"sqlite:///{tmp_path / 'groundwork.db'}"


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database with every table."""
    from tests.services import TEMPLATE

    url = postgres.create(TEMPLATE)
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database with every table, on each engine in turn."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A broker of this test's own; `valkey.url` is its Celery URL, `kill` and `start` may be called."""
    from tests.services import Valkey

    server = Valkey()
    yield server
    server.stop()
