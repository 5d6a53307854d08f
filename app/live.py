"""Live streams of server-sent events, each of which holds next to nothing while nothing happens.

A response of the framework is sent from inside its layers: an idle stream would keep a frame, an exit stack and a
request object of every one of them for hours, and the usual response for events four tasks besides: 59 KiB. Here the
route's response only leaves word of itself, and `RequestEdge` serves it once everything above it has been left: 24 KiB,
of which 10 are the connection's own (row L7 of benchmarks/api).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import uvicorn
from sse_starlette import ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_AFTER = "live"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_open: set[Pulse] = set()


class Pulse:
    """What wakes a stream: a change, the end of its client, or that of the server."""

    def __init__(self) -> None:
        self.over = False
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()

    def wake(self) -> None:
        """Something has changed; from any thread."""
        self._loop.call_soon_threadsafe(self._woken.set)

    def end(self) -> None:
        """Nobody listens any more; from any thread."""
        self.over = True
        self.wake()

    def rest(self) -> None:
        """What changed until now is about to be looked at."""
        self._woken.clear()

    async def wait(self, seconds: float) -> bool:
        """Until it is woken, or so long; whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True


class LiveResponse(Response):
    """`follow(pulse)` yields events until `pulse.over`; what it leaves behind it ends in its own `finally`."""

    media_type = "text/event-stream"

    def __init__(self, follow: Callable[[Pulse], AsyncGenerator[ServerSentEvent, None]]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._follow = follow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave word for the edge."""
        scope[_AFTER] = self._serve

    async def _serve(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pulse = Pulse()
        listening = asyncio.create_task(_until_gone(receive, pulse))
        _open.add(pulse)
        if DrainingServer.draining:  # its request came before the signal, and this after it
            pulse.end()
        events = self._follow(pulse)
        try:
            async for event in events:
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
                if pulse.over:
                    break
        finally:
            _open.discard(pulse)
            listening.cancel()
            await events.aclose()
        await send({"type": "http.response.body", "body": b""})


async def serve_live(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the live response that a route has left word of, if one has. Call it outside of every layer."""
    serve: Any = scope.pop(_AFTER, None)
    if serve is not None:
        for name in [name for name in scope if name == "state" or name.startswith(("fastapi", "starlette"))]:
            del scope[name]  # the request's key, body, sessions and exit stacks, all of them done with
        await serve(receive, send)


async def _until_gone(receive: Receive, pulse: Pulse) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    pulse.end()


class DrainingServer(uvicorn.Server):
    """Ends the live streams when it is told to stop: their clients go on elsewhere, by `Last-Event-ID` (F23)."""

    draining = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal."""
        DrainingServer.draining = True
        super().handle_exit(sig, frame)
        for pulse in list(_open):
            pulse.end()
