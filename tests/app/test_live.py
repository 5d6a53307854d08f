"""Live streams by themselves: where they are served, and what ends them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import uvicorn
from sse_starlette import ServerSentEvent

from app import live
from app.live import DrainingServer, LiveResponse, Pulse, serve_live


class Client:
    """One connection of a client that stays until it is told to go."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def waiting(ended: list[str]) -> Any:
    """A stream of one event that then waits for changes that never come."""

    async def follow(pulse: Pulse) -> AsyncGenerator[ServerSentEvent, None]:
        try:
            yield ServerSentEvent("first")
            while not pulse.over:
                pulse.rest()
                await pulse.wait(60)
        finally:
            ended.append("done")

    return follow


async def served(end: Any) -> tuple[Client, list[str], dict[str, Any]]:
    """A stream that is served until `end(client)`."""
    client, ended = Client(), []
    scope: dict[str, Any] = {"type": "http", "path": "/", "state": {"key": "held"}, "fastapi_inner_astack": object()}
    await LiveResponse(waiting(ended))(scope, client.receive, client.send)
    assert client.sent == []  # nothing is sent from inside the framework
    serving = asyncio.create_task(serve_live(scope, client.receive, client.send))
    while not client.text:
        await asyncio.sleep(0.01)
    end(client)
    await asyncio.wait_for(serving, 5)
    return client, ended, scope


def test_a_stream_ends_with_its_client_and_cleans_up() -> None:
    client, ended, scope = asyncio.run(served(lambda client: client.gone.set()))
    assert client.sent[0]["type"] == "http.response.start"
    assert client.text == b"data: first\r\n\r\n"
    assert ended == ["done"]
    assert not live._open
    assert scope == {"type": "http", "path": "/"}  # what the request held is let go of while the stream lives


def test_a_server_that_is_told_to_stop_ends_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DrainingServer, "draining", False)
    server = DrainingServer(uvicorn.Config(lambda: None))
    client, ended, _ = asyncio.run(served(lambda _client: server.handle_exit(signal.SIGTERM, None)))
    assert client.sent[-1] == {"type": "http.response.body", "body": b""}
    assert ended == ["done"]


def test_a_stream_that_opens_after_the_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DrainingServer, "draining", False)
    DrainingServer(uvicorn.Config(lambda: None)).handle_exit(signal.SIGTERM, None)
    client, ended, _ = asyncio.run(served(lambda _client: None))
    assert client.sent[-1] == {"type": "http.response.body", "body": b""}
    assert ended == ["done"]


def test_a_route_without_a_live_response_leaves_nothing_to_serve() -> None:
    client = Client()

    async def nothing() -> None:
        await serve_live({"type": "http"}, client.receive, client.send)

    asyncio.run(nothing())
    assert client.sent == []
