"""An open-loop HTTP generator: requests leave at their planned times, and latency counts from the planned time.

A closed loop sends less while the server stalls and so never sees the stall (coordinated omission). Here a request
whose turn has come waits for a free connection, and that wait is part of its latency.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

PATIENCE_SECONDS = 30.0


@dataclass
class Seen:
    """What the clients saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    good: list[tuple[float, float]] = field(default_factory=list)
    """(end, latency) of each answer below 400, the end in seconds from the beginning."""

    def percentile(self, percent: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.latencies)
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000, 1) if ordered else 0.0

    def brief(self) -> dict[str, Any]:
        """For the results."""
        return {
            "per_second": round(len(self.good) / self.seconds, 1) if self.seconds else 0.0,
            "p50_ms": self.percentile(50), "p99_ms": self.percentile(99), "max_ms": self.percentile(100),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
        }  # fmt: skip


def wire(method: str, path: str, token: str = "", body: Any = None, headers: Iterable[str] = ()) -> bytes:
    """A request as it goes over the wire. `body`: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: application/json", *headers]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Line:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body; status 0 where the server hung up or took too long."""
        for fresh in (self._streams is None, True):
            try:
                return await asyncio.wait_for(self._once(request), PATIENCE_SECONDS)
            except (TimeoutError, OSError, asyncio.IncompleteReadError):
                self.close()
                if fresh:
                    break
        return 0, b"", b""

    async def _once(self, request: bytes) -> tuple[int, bytes, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        size = int(lower[at + 15 : lower.index(b"\r\n", at)]) if at >= 0 else 0
        body = await reader.readexactly(size) if size else b""
        if b"connection: close" in lower:
            self.close()
        return int(head[9:12]), head, body

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def open_loop(port: int, make: Callable[[int], bytes], rate: float, seconds: float, lines: int = 500) -> Seen:
    """`rate` requests a second, evenly spaced, the n-th made by `make(n)`, over at most so many connections."""
    free = [Line(port) for _ in range(lines)]
    gate, seen, running = asyncio.Semaphore(lines), Seen(), set()
    began = time.perf_counter()

    async def one(number: int, planned: float) -> None:
        async with gate:
            line = free.pop()
            status, _, _ = await line.exchange(make(number))
            free.append(line)
        ended = time.perf_counter()
        seen.latencies.append(ended - planned)
        seen.statuses[status] += 1
        if 0 < status < 400:
            seen.good.append((ended - began, ended - planned))

    for number in range(int(rate * seconds)):
        planned = began + number / rate
        pause = planned - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(one(number, planned))
        running.add(task)
        task.add_done_callback(running.discard)
        if number % 50 == 49:
            await asyncio.sleep(0)  # behind plan: let answers in
    await asyncio.gather(*running)
    seen.seconds = time.perf_counter() - began
    for line in free:
        line.close()
    return seen


async def closed_loop(
    port: int, make: Callable[[int], bytes], clients: int, seconds: float, told: Callable[[bytes], None] | None = None
) -> Seen:
    """So many clients, each sending its next request when the last is answered: for ceilings and claims only."""
    seen, numbers = Seen(), iter(range(10**9))
    began = time.perf_counter()

    async def client() -> None:
        line = Line(port)
        while (sent := time.perf_counter()) - began < seconds:
            status, _, body = await line.exchange(make(next(numbers)))
            ended = time.perf_counter()
            seen.latencies.append(ended - sent)
            seen.statuses[status] += 1
            if 0 < status < 400:
                seen.good.append((ended - began, ended - sent))
            if told is not None:
                told(body)
        line.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    seen.seconds = time.perf_counter() - began
    return seen
