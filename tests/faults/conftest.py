"""A rig on each pair of services."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.app.conftest import live_api, settings
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig, started
from tests.services import S3

__all__ = ["live_api", "settings"]
SERVICES = ["embedded", "postgresql", "s3"]
"""SQLite and a folder; PostgreSQL and a folder; PostgreSQL and an S3-compatible store. A broker is always there."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """One for all tests of this process; each has a bucket of its own."""
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new one, which this process and those it starts can reach."""
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    name = f"b{os.urandom(6).hex()}"
    boto3.client("s3", endpoint_url=s3_server.url, region_name="us-east-1").create_bucket(Bucket=name)
    return f"s3://{name}/groundwork"


def on(request: pytest.FixtureRequest, **changes: object) -> Iterator[Rig]:
    """A rig on the services that the parameter names."""
    if request.param == "s3":
        changes["store_url"] = request.getfixturevalue("bucket")
    database = "sqlite" if request.param == "embedded" else "postgresql"
    template, folder = request.getfixturevalue("sqlite_template"), request.getfixturevalue("tmp_path")
    yield from started(folder, database, template, **changes)


@pytest.fixture(params=SERVICES)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """API, worker and broker as processes of their own."""
    yield from on(request)


@pytest.fixture
def embedded(sqlite_template: Path, tmp_path: Path) -> Iterator[Rig]:
    """The same on SQLite alone, where the row does not concern the services."""
    yield from started(tmp_path, "sqlite", sqlite_template)


@pytest.fixture(params=SERVICES)
def patient(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A rig whose leases outlive every outage of a test, on a slow machine too: no attempt may be lost."""
    yield from on(request, lease_seconds=60.0, heartbeat_seconds=5.0)


@pytest.fixture
def far_store(
    s3_server: S3, bucket: str, monkeypatch: pytest.MonkeyPatch, sqlite_template: Path, tmp_path: Path
) -> Iterator[tuple[Rig, Proxy]]:
    """A patient rig whose S3 store is behind a network that a test may spoil."""
    with Proxy(int(s3_server.url.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        for rig in started(
            tmp_path, "postgresql", sqlite_template, lease_seconds=60.0, heartbeat_seconds=5.0, store_url=bucket
        ):  # fmt: skip
            yield rig, proxy
            proxy.mode = "pass"
