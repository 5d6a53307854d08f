"""The open-loop generator against small servers of this test."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.api import report
from benchmarks.api.load import Seen, open_loop, wire

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def loaded(stall: float, rate: float, seconds: float, lines: int = 20, reply: bytes = REPLY) -> Seen:
    """What clients saw of a server whose first answer takes `stall` seconds, and that answers nothing meanwhile."""

    async def run() -> Seen:
        waiting, first = asyncio.Lock(), [stall]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                async with waiting:
                    await asyncio.sleep(first.pop() if first else 0)
                writer.write(reply)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        seen = await open_loop(port, lambda _: wire("GET", "/"), rate, seconds, lines)
        server.close()
        return seen

    return asyncio.run(run())


def test_a_stall_is_seen_by_every_request_that_should_have_been_sent_during_it() -> None:
    seen = loaded(stall=1.0, rate=50, seconds=2.0, lines=1)
    assert len(seen.latencies) == 100
    assert sum(latency > 0.5 for latency in seen.latencies) >= 20, "a closed loop would have seen one slow request"


def test_every_planned_request_is_sent_and_counted_by_its_status() -> None:
    refused = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    seen = loaded(stall=0, rate=40, seconds=1.0, reply=refused)
    assert seen.statuses == {503: 40} and seen.good == []


def test_results_of_one_row_leave_the_others_standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    about = {"date": "d", "jobs": 1, "load": 0, "device": "x", "cores": "0,1", "database": "sqlite", "note": ""}
    report.write("api", about, {"L1": {"p99_ms": 1.0, "met": True}})
    report.write("api", about, {"L7": {"kib_each": 9.0, "met": False}})
    text = (tmp_path / "api.md").read_text()
    assert "| L1 |" in text and "p99 ms 1.0 | yes |" in text and "kib each 9.0 | no |" in text
