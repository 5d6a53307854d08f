"""A rig on each pair of services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import live_api, settings
from tests.faults.rig import Rig, started

__all__ = ["live_api", "settings"]


@pytest.fixture(params=["embedded", "postgresql"])
def rig(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> Iterator[Rig]:
    """API, worker and broker as processes of their own, on SQLite and on PostgreSQL."""
    database = "sqlite" if request.param == "embedded" else "postgresql"
    yield from started(tmp_path, database, sqlite_template)


@pytest.fixture
def embedded(sqlite_template: Path, tmp_path: Path) -> Iterator[Rig]:
    """The same on SQLite alone, where the row does not concern the services."""
    yield from started(tmp_path, "sqlite", sqlite_template)


@pytest.fixture(params=["embedded", "postgresql"])
def patient(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> Iterator[Rig]:
    """A rig whose leases outlive every outage of a test, on a slow machine too: no attempt may be lost."""
    database = "sqlite" if request.param == "embedded" else "postgresql"
    yield from started(tmp_path, database, sqlite_template, lease_seconds=60.0, heartbeat_seconds=5.0)
