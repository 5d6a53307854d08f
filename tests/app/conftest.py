"""The application under test: in this process for most, as a real server where the wire matters."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.auth.guard import Principal
from app.auth.service import ALL_SCOPES, create_key, create_project
from app.main import create_app
from app.platform import Platform, session_scope
from app.settings import Settings

ROOT = Path(__file__).parents[2]
SECRETS = {"worker_token": "worker-token-of-the-tests", "secret_key": "secret-key-of-the-tests"}


def make_settings(database_url: str, folder: Path, **changes: Any) -> Settings:
    """Settings of a test: everything below `folder`, times scaled down."""
    values: dict[str, Any] = {
        "data_dir": folder,
        "database_url": database_url,
        "reconcile_seconds": 0.2,
        "log_level": "WARNING",
        "min_free_bytes": 0,
        **{name: SecretStr(value) for name, value in SECRETS.items()},
        **changes,
    }
    return Settings(**values)


@dataclass
class Api:
    """The application with two projects in it."""

    app: FastAPI
    client: TestClient
    """Authenticated by an admin key of the first (root) project."""
    project_id: str
    stranger: TestClient
    """An admin key of another project."""
    stranger_project_id: str
    anonymous: TestClient
    """No key at all."""

    @property
    def platform(self) -> Platform:
        """The application's platform."""
        platform: Platform = self.app.state.platform
        return platform

    def with_scopes(self, *scopes: str) -> TestClient:
        """A client of the first project whose key has these scopes only."""
        with session_scope(self.platform) as session:
            key = create_key(session, self.platform.settings, self.project_id, "scoped", scopes)[1]
        return client_of(self.app, key)


def client_of(app: FastAPI, key: str | None = None) -> TestClient:
    """A client of the application in this process; a fault answers 500 instead of being raised here."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return TestClient(app, headers=headers, raise_server_exceptions=False)


def fill(platform: Platform) -> tuple[str, str, str, str]:
    """Two projects: (root id, its key, other id, its key)."""
    root = Principal("", "", frozenset(ALL_SCOPES), root=True)
    with session_scope(platform) as session:
        first, _, key = create_project(session, platform.settings, root, "first")
        first.root = True
        second, _, other = create_project(session, platform.settings, root, "second")
        return first.id, key, second.id, other


def serve(settings: Settings) -> Iterator[Api]:
    """An `Api` over these settings; the lifespan runs, so its background threads do."""
    app = create_app(settings)
    project_id, key, other_id, other_key = fill(app.state.platform)
    with client_of(app, key) as client:
        yield Api(app, client, project_id, client_of(app, other_key), other_id, client_of(app))


@pytest.fixture
def settings(sqlite_url: str, tmp_path: Path) -> Settings:
    """Settings over a fresh SQLite database."""
    return make_settings(sqlite_url, tmp_path)


@pytest.fixture
def platform(settings: Settings) -> Iterator[Platform]:
    """The platform without an application, on SQLite."""
    platform = Platform.open(settings)
    yield platform
    platform.close()


@pytest.fixture
def everywhere(database_url: str, tmp_path: Path) -> Iterator[Platform]:
    """The platform without an application, on each database engine in turn."""
    platform = Platform.open(make_settings(database_url, tmp_path))
    yield platform
    platform.close()


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    """The application on SQLite."""
    yield from serve(settings)


@pytest.fixture(scope="module")
def shared_api(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One application for all tests of a module, for those that leave nothing behind that another would see."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(sqlite_template, folder / "groundwork.db")
    yield from serve(make_settings("", folder, outbound=True))


@pytest.fixture
def api_everywhere(database_url: str, tmp_path: Path) -> Iterator[Api]:
    """The application on each database engine in turn."""
    yield from serve(make_settings(database_url, tmp_path))


@dataclass
class LiveApi:
    """A real server process."""

    process: subprocess.Popen[bytes]
    url: str
    key: str
    log: Path
    settings: Settings
    client: httpx2.Client

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a process these settings."""
    plain = settings.model_dump(mode="json", exclude_defaults=True)
    listed = {name: ",".join(map(str, each)) if isinstance(each, list) else each for name, each in plain.items()}
    named = {f"GROUNDWORK_{name.upper()}": str(value) for name, value in listed.items()}
    secret = {f"GROUNDWORK_{name.upper()}": value for name, value in SECRETS.items()}
    return {**os.environ, **named, **secret, "PYTHONPATH": str(ROOT)}


def start_server(settings: Settings, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server process on a free port, and its URL, once it listens."""
    from tests.services import die_with_parent

    settings = settings.model_copy(update={"port": 0, "log_level": "INFO"})
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.main"],
            cwd=log.parent,
            env={**environment(settings), "GROUNDWORK_PORT": "0"},
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,
        )
    return process, _announced(process, log)


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"event": "listening"' in line:
                return line.partition('"url": "')[2].partition('"')[0]
        time.sleep(0.02)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def live_api(settings: Settings, tmp_path: Path) -> Iterator[LiveApi]:
    """A real server on SQLite, over a real socket."""
    yield from _live(settings, tmp_path)


@pytest.fixture(scope="module")
def shared_live_api(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApi]:
    """One real server for all tests of a module."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copy(sqlite_template, folder / "groundwork.db")
    yield from _live(make_settings("", folder), folder)


def _live(settings: Settings, folder: Path) -> Iterator[LiveApi]:
    platform = Platform.open(settings)
    key = fill(platform)[1]
    platform.close()
    log = folder / "api.log"
    process, url = start_server(settings, log)
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        yield LiveApi(process, url, key, log, settings, client)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
