"""A real server over a real socket, the official client in front of it, and a worker at its other door."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest

from app.auth.service import create_key
from app.platform import Platform, session_scope
from app.settings import Settings
from tests.app.conftest import LiveApi, fill, settings, start_server
from tests.app.jobs_world import Worker, ready_dataset

__all__ = ["settings", "world"]


@dataclass
class World:
    """The server, and what two projects may do there."""

    live: LiveApi
    platform: Platform
    project_id: str
    stranger_key: str
    worker: Worker
    opened: list[openai.OpenAI] = field(default_factory=list)

    def openai(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        """The official client; no retries unless asked for."""
        made = openai.OpenAI(
            **{"base_url": f"{self.live.url}/v1", "api_key": key or self.live.key, "max_retries": 0, **options}
        )
        self.opened.append(made)
        return made

    def key(self, *scopes: str) -> str:
        """A key of the first project with these scopes only."""
        with session_scope(self.platform) as session:
            return create_key(session, self.platform.settings, self.project_id, "scoped", scopes)[1]

    def dataset(self, content: bytes = b"rows", **profile: Any) -> str:
        """A dataset that is ready."""
        return ready_dataset(self.platform, self.project_id, content, **profile)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """Everything, until the test is done."""
    yield from start_world(settings)


def start_world(settings: Settings) -> Iterator[World]:
    """A server with these settings."""
    platform = Platform.open(settings)
    project, key, _, stranger = fill(platform)
    log = settings.data_dir / "api.log"
    process, url = start_server(settings, log)
    with httpx2.Client(base_url=url, timeout=30) as plain:
        live = LiveApi(process, url, key, log, settings, plain)
        made = World(live, platform, project, stranger, Worker(plain))  # type: ignore[arg-type]
        yield made
        for client in made.opened:
            client.close()
    process.terminate()
    process.wait(timeout=20)
    platform.close()
