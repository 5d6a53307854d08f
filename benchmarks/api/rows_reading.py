"""Rows of those who look: L1 polls and the floor beside them, L7 idle streams, L8 overload and recovery, L9 soak."""

from __future__ import annotations

import asyncio
import json
import time
from statistics import median
from typing import Any

from benchmarks.api.load import Line, Seen, closed_loop, open_loop, wire
from benchmarks.api.server import Server, held, used
from benchmarks.api.world import World

CLIENTS, POLL_SECONDS, RUNS = 500, 2.0, 3
CEILINGS = {"postgresql": 400, "sqlite": 250}


def polls(world: World, port: int, changed: bool = False) -> list[bytes]:
    """One status request for each client, as a client sends it again: with the ETag that it saw."""
    paths = [f"/v1/jobs/{job}" for job in world.jobs[:CLIENTS]]

    async def ask() -> list[bytes]:
        line, found = Line(port), []
        for path in paths:
            _, head, _ = await line.exchange(wire("GET", path, world.keys[0]))
            tags = [each for each in head.decode().split("\r\n") if each.lower().startswith("etag:")]
            more = [] if changed else [f"If-None-Match: {tags[0].partition(':')[2].strip()}"]
            found.append(wire("GET", path, world.keys[0], headers=more))
        line.close()
        return found

    return asyncio.run(ask())


def measured(server: Server, load: Any) -> tuple[Seen, dict[str, Any]]:
    """Run a load and say what its requests cost the server, once it is done with whatever came before."""
    settle(server)
    before = used(server)
    seen: Seen = asyncio.run(load)
    return seen, {**seen.brief(), **before.each(used(server), len(seen.latencies))}


def settle(server: Server, seconds: float = 60) -> None:
    """Wait until a server works on nothing any more: requests that clients gave up are still being served."""
    end, pause = time.perf_counter() + seconds, 0.5
    while time.perf_counter() < end:
        before = used(server).server
        time.sleep(pause)
        if used(server).server - before < 0.1 * pause:
            return


def over(asked: list[bytes]) -> Any:
    """Requests in turn."""
    return lambda number: asked[number % len(asked)]


def l1(world: World) -> dict[str, Any]:
    """500 clients that poll every 2 s, unchanged (304) and changed (200); ceilings; the floor's same requests."""
    rate, seconds = CLIENTS / POLL_SECONDS, world.seconds(20)
    runs, found = [], {}
    with world.api() as server:
        unchanged, full = polls(world, server.port), polls(world, server.port, changed=True)
        measured(server, closed_loop(server.port, over(full), 8, 2))
        found["ceiling_304"] = measured(server, closed_loop(server.port, over(unchanged), 32, seconds))[1]
        found["ceiling_200"] = measured(server, closed_loop(server.port, over(full), 32, seconds))[1]
        pages = over([wire("GET", "/v1/jobs?limit=50", world.keys[0])])
        found["list_50"] = measured(server, closed_loop(server.port, pages, 4, seconds))[1]
        ping = over([wire("GET", "/healthz")])
        found["healthz"] = measured(server, closed_loop(server.port, ping, 32, seconds))[1]
        for _ in range(RUNS):
            runs.append(measured(server, open_loop(server.port, over(unchanged), rate, seconds))[1])
        found["changed"] = measured(server, open_loop(server.port, over(full), rate, seconds))[1]
    with world.floor() as server:
        by_id = over([wire("GET", f"/jobs/{job}") for job in world.jobs[:CLIENTS]])
        measured(server, closed_loop(server.port, by_id, 8, 2))
        floor = {"job": measured(server, closed_loop(server.port, by_id, 32, seconds))[1]}
        listed = over([wire("GET", f"/jobs?project={world.projects[0]}")])
        floor["list_50"] = measured(server, closed_loop(server.port, listed, 4, seconds))[1]
        floor["ping"] = measured(server, closed_loop(server.port, over([wire("GET", "/ping")]), 32, seconds))[1]
    found |= {"runs": runs, "floor": floor, "ratios": _ratios(found, floor)}
    p50, p99 = (median(each[name] for each in runs) for name in ("p50_ms", "p99_ms"))
    found |= {"p50_ms": p50, "p99_ms": p99, "cpu_ms": median(each["cpu_ms"] for each in runs)}
    ceiling = found["ceiling_200"]["per_second"]
    return found | {"met": p50 < 15 and p99 < 150 and ceiling >= CEILINGS[world.kind], "ceiling_per_second": ceiling}


def _ratios(found: dict[str, Any], floor: dict[str, Any]) -> dict[str, float]:
    pairs = {
        "job_304": (found["ceiling_304"], floor["job"]), "job_200": (found["ceiling_200"], floor["job"]),
        "list_50": (found["list_50"], floor["list_50"]),
    }  # fmt: skip
    return {name: round(ours["cpu_ms"] / theirs["cpu_ms"], 2) for name, (ours, theirs) in pairs.items()}


def l7(world: World) -> dict[str, Any]:
    """200 idle event streams: memory of each, and polls beside them."""
    streams, seconds = 200, world.seconds(12)

    async def watch(server: Server, polled: list[bytes]) -> tuple[Seen, Seen, list[float]]:
        alone = await open_loop(server.port, over(polled), 50, seconds)
        sizes, writers = [held(server)["rss_mb"]], []
        # The first few make what every stream shares; they are not counted.
        for number in range(streams + 20):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            path = f"/v1/jobs/{world.jobs[number]}/events"
            request = wire("GET", path, world.keys[0]).replace(b"application/json", b"text/event-stream")
            writer.write(request)
            writers.append(writer)
            if number == 19:
                await asyncio.sleep(2)
                sizes.append(held(server)["rss_mb"])
        await asyncio.sleep(4)
        sizes.append(held(server)["rss_mb"])
        beside = await open_loop(server.port, over(polled), 50, seconds)
        for writer in writers:
            writer.close()
        return alone, beside, sizes

    with world.api() as server:
        polled = polls(world, server.port)
        asyncio.run(closed_loop(server.port, over(polled), 50, 3))
        alone, beside, sizes = asyncio.run(watch(server, polled))
    each = (sizes[-1] - sizes[-2]) * 1024 / streams
    found = {"streams": streams, "kib_each": round(each, 1), "alone": alone.brief(), "beside": beside.brief()}
    return found | {"met": each < 20 and beside.percentile(99) < max(150.0, 2 * alone.percentile(99))}


def l8(world: World) -> dict[str, Any]:
    """Three times what it can: how much is still answered well, how the rest is refused, when it is itself again."""
    seconds = world.seconds(15, 6)
    with world.api() as server:
        full = over(polls(world, server.port, changed=True))
        measured(server, closed_loop(server.port, full, 8, 2))
        peak = measured(server, closed_loop(server.port, full, 32, seconds))[1]["per_second"]
        over_load, brief = measured(server, open_loop(server.port, full, 3 * peak, seconds))
        began = time.perf_counter()
        recovered = None
        while recovered is None and time.perf_counter() - began < 20:
            again = asyncio.run(open_loop(server.port, full, max(peak / 4, 5), 1))
            if again.percentile(99) < 200 and set(again.statuses) == {200}:
                recovered = round(time.perf_counter() - began, 1)
        holds = held(server)
    refused = all(status in (200, 429, 503) for status in over_load.statuses)
    goodput = brief["per_second"] / peak
    found = {"peak_per_second": peak, "overload": brief, "goodput": round(goodput, 2), "recovered_seconds": recovered}
    return found | {"held": holds, "met": goodput >= 0.8 and refused and recovered is not None and recovered < 10}


def l9(world: World, minutes: float) -> dict[str, Any]:
    """A steady mix for so many minutes: the slopes of what the process holds, the first quarter left out."""
    samples: list[dict[str, float]] = []

    async def soak(server: Server, asked: list[bytes]) -> Seen:
        async def sample() -> None:
            while True:
                samples.append({"at": time.perf_counter(), **held(server)})
                await asyncio.sleep(1)

        sampler = asyncio.create_task(sample())
        seen = await open_loop(server.port, over(asked), 60, minutes * 60, lines=50)
        sampler.cancel()
        return seen

    with world.api() as server:
        page = wire("GET", "/v1/jobs?limit=20", world.keys[0])
        seen, cost = measured(server, soak(server, [*polls(world, server.port), page]))
    late = samples[len(samples) // 4 :]
    slopes = {name: round(_slope(late, name), 2) for name in late[0] if name != "at"}
    flat = all(abs(late[-1][name] - late[0][name]) <= 3 for name in ("files", "threads", "database_processes"))
    found = {"minutes": minutes, "slopes_per_hour": slopes, "first": late[0], "last": late[-1], "load": cost}
    return json.loads(json.dumps(found)) | {"met": slopes["rss_mb"] < 5 and flat and set(seen.statuses) <= {200, 304}}


def _slope(samples: list[dict[str, float]], name: str) -> float:
    """Per hour, by least squares."""
    times, values = [each["at"] for each in samples], [each[name] for each in samples]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times) or 1.0
    return sum((at - middle) * (value - mean) for at, value in zip(times, values, strict=True)) / spread * 3600
