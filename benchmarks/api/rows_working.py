"""Rows of the workers and the queue: L2 points, L5 100,000 queued jobs, L6 heartbeats on top of polls and points."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy import event, func, select

from app.jobs import turns
from app.jobs.limits import Limits
from app.jobs.tables import Job, Point
from app.platform import read_scope
from app.queue import Doorbell
from app.reaper import Conductor, Reaper, Reconciler
from benchmarks.api.load import Line, Seen, closed_loop, open_loop, wire
from benchmarks.api.rows_reading import measured, over, polls
from benchmarks.api.server import WORKER_TOKEN, held, used
from benchmarks.api.world import World
from tests.app.jobs_world import pretrain_body

CLAIM = {"job_id": None, "queue": "cpu", "worker": {"name": "bench", "host": "host", "pid": 1, "boot_id": "b"}}
POINTS_PER_SECOND = {"postgresql": 10_000, "sqlite": 5_000}
SERIES, STEPS = 5, 100
"""A batch holds 500 points: 100 steps of 5 series."""


class Run:
    """A claimed job, and the batches that its worker sends."""

    def __init__(self, ticket: dict[str, Any]) -> None:
        self.ticket, self.batches = ticket, 0

    def request(self, verb: str, **body: Any) -> bytes:
        """One call through the worker's door."""
        path = f"/internal/v1/jobs/{self.ticket['job_id']}/{verb}"
        return wire("POST", path, self.ticket["token"], {"fence": self.ticket["fence"], **body})

    def batch(self) -> bytes:
        """The next 500 points."""
        first = self.batches * STEPS
        self.batches += 1
        events = [
            {"seq": step, "time": 0.0, "type": "metrics", "step": step,
             "values": {f"loss/{name}": step + name / 10 for name in range(SERIES)}}
            for step in range(first + 1, first + STEPS + 1)
        ]  # fmt: skip
        return self.request("events", events=events)


async def claimed(port: int, count: int) -> list[Run]:
    """So many jobs in hand."""
    line, found = Line(port), []
    for _ in range(count):
        status, _, body = await line.exchange(wire("POST", "/internal/v1/claim", WORKER_TOKEN, CLAIM))
        assert status == 200, status
        found.append(Run(json.loads(body)))
    line.close()
    return found


def batches(runs: list[Run], count: int) -> Callable[[int], bytes]:
    """So many batches made ahead, run by run; every tenth is sent twice, as after a lost answer."""
    made: list[bytes] = []
    for number in range(count):
        fresh = number % 10 != 9 or number < len(runs)
        made.append(runs[number % len(runs)].batch() if fresh else made[number - len(runs)])
    return lambda number: made[number]


def kept(world: World, runs: list[Run]) -> tuple[int, int, bool]:
    """Points in the database, points sent, and whether they are the same ones."""
    ids = [run.ticket["job_id"] for run in runs]
    with read_scope(world.platform) as session:
        rows = session.execute(
            select(Point.job_id, func.count(), func.sum(Point.step)).where(Point.job_id.in_(ids)).group_by(Point.job_id)
        ).all()
    there = {row[0]: (int(row[1]), int(row[2])) for row in rows}
    steps = {run.ticket["job_id"]: run.batches * STEPS for run in runs if run.batches}
    sent = {job: (SERIES * last, SERIES * last * (last + 1) // 2) for job, last in steps.items()}
    return sum(each[0] for each in there.values()), sum(each[0] for each in sent.values()), there == sent


def l2(world: World) -> dict[str, Any]:
    """Points through the worker's door, every tenth batch twice; the floor's plain inserts beside them."""
    rate, seconds = POINTS_PER_SECOND[world.kind] / (SERIES * STEPS), world.seconds(60, 10)
    with world.api() as server:
        runs = asyncio.run(claimed(server.port, 8))
        make = batches(runs, int(rate * seconds))
        seen, cost = measured(server, open_loop(server.port, make, rate, seconds))
        holds = held(server)
    stored, sent, same = kept(world, runs)
    with world.floor() as server:
        steps = list(range(SERIES * STEPS))
        plain = wire("POST", "/points", body={"job": "j", "steps": steps, "values": [step / 7 for step in steps]})
        floor = measured(server, open_loop(server.port, lambda _: plain, rate, min(seconds, 10)))[1]
    met = same and seen.percentile(99) < 300 and set(seen.statuses) == {200} and seen.seconds < seconds + 2
    return {
        "points_per_second": round(cost["per_second"] * SERIES * STEPS), "seconds": round(seconds), "stored": stored,
        "sent": sent, "same": same, **cost, "held": holds, "floor": floor,
        "ratio": round(cost["cpu_ms"] / floor["cpu_ms"], 2), "met": met,
    }  # fmt: skip


def l5(world: World) -> dict[str, Any]:
    """A long queue: list pages, claims, creates, the background passes, fairness, and the plans of the queries."""
    seconds, found = world.seconds(15, 5), {}
    with world.api() as server:
        pages = over(_pages(world))
        measured(server, closed_loop(server.port, pages, 2, 1))
        found["list_any_page"] = measured(server, open_loop(server.port, pages, 20, seconds))[1]
        served: Counter[str] = Counter()
        claim = wire("POST", "/internal/v1/claim", WORKER_TOKEN, CLAIM)
        tickets: list[bytes] = []
        found["claims"] = measured(server, closed_loop(server.port, lambda _: claim, 8, seconds, tickets.append))[1]
        served = _served(world, tickets[:200])
        found["first_200_claims_by_project"] = [served[project] for project in world.projects]
        body = pretrain_body(world.dataset)
        create = wire("POST", "/v1/jobs", world.keys[0], body)
        found["creates"] = measured(server, closed_loop(server.port, lambda _: create, 4, seconds))[1]
    found["passes_seconds"] = _passes(world)
    found["plans"] = _plans(world)
    fair = max(served.values()) <= 1.5 * min(served[project] for project in world.projects)
    minutes = 100_000 / max(found["creates"]["per_second"], 1e-9) / 60
    met = {
        "list": found["list_any_page"]["p99_ms"] < 100, "claim": found["claims"]["p99_ms"] < 50, "fair": fair,
        "creates": minutes <= 10, "passes": max(found["passes_seconds"].values()) < 5,
        "plans": all(found["plans"].values()),
    }  # fmt: skip
    return {**found, "minutes_for_100k_creates": round(minutes, 1), "parts": met, "met": all(met.values())}


def _pages(world: World) -> list[bytes]:
    count = len(world.jobs)
    after = [world.jobs[count * tenth // 10] for tenth in range(1, 10)]
    paths = ["/v1/jobs?limit=50", *(f"/v1/jobs?limit=50&after={job}" for job in after)]
    paths += [f"/v1/jobs?limit=50&status=queued&after={job}" for job in after]
    return [wire("GET", path, world.keys[0]) for path in paths]


def _served(world: World, tickets: list[bytes]) -> Counter[str]:
    ids = [json.loads(ticket)["job_id"] for ticket in tickets if ticket]
    with read_scope(world.platform) as session:
        return Counter(session.scalars(select(Job.project_id).where(Job.id.in_(ids))))


def _passes(world: World) -> dict[str, float]:
    numbers = Limits(reconcile_ms=0)
    works: dict[str, Callable[[], object]] = {
        "reconciler": Reconciler(world.platform, Doorbell(""), numbers).ring_again,
        "reaper": Reaper(world.platform, numbers).sweep, "conductor": Conductor(world.platform, numbers).look,
    }  # fmt: skip
    took = {}
    for name, work in works.items():
        began = time.perf_counter()
        work()
        took[name] = round(time.perf_counter() - began, 3)
    return took


def _plans(world: World) -> dict[str, bool]:
    """Whether each query of the claim and of a list page finds its rows by an index."""
    seen: list[tuple[str, Any]] = []
    engine = world.platform.engine

    def note(_c: Any, _cursor: Any, statement: str, arguments: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, arguments))

    event.listen(engine, "before_cursor_execute", note)
    with read_scope(world.platform) as session:
        wanted = turns.Wanted(None, "cpu")
        turn = turns.look(session, wanted)
        for chosen in list(turns.choices(session, wanted, turn))[:1]:
            session.scalars(select(Job.id).where(chosen)).all()
        mine = select(Job).where(Job.project_id == world.projects[0], Job.parent_id.is_(None), Job.type != "ingest")
        session.scalars(mine.where(Job.id < world.jobs[-1]).order_by(Job.id.desc()).limit(51)).all()
    event.remove(engine, "before_cursor_execute", note)
    found, how = {}, "EXPLAIN" if world.kind == "postgresql" else "EXPLAIN QUERY PLAN"
    for name, (statement, arguments) in zip(("turns", "pick", "page"), seen[-3:], strict=True):
        with engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"{how} {statement}", arguments).all())
        found[name] = "Seq Scan on jobs" not in plan and "SCAN jobs'" not in plan
    return found


def l6(world: World) -> dict[str, Any]:
    """500 heartbeats per 10 s, with the polls of L1 and the points of L2 beside them."""
    seconds, rate = world.seconds(20, 10), POINTS_PER_SECOND[world.kind] / (SERIES * STEPS)

    async def mix(port: int, runs: list[Run], polled: list[bytes]) -> dict[str, Seen]:
        beats = over([run.request("heartbeat") for run in runs])
        loads = {
            "heartbeats": open_loop(port, beats, 50, seconds, 100),
            "polls": open_loop(port, over(polled), 250, seconds, 300),
            "points": open_loop(port, batches(runs[:8], int(rate * seconds)), rate, seconds, 50),
        }  # fmt: skip
        return dict(zip(loads, await asyncio.gather(*loads.values()), strict=True))

    with world.api() as server:
        runs = asyncio.run(claimed(server.port, 50))
        polled, before = polls(world, server.port), used(server)
        seen = asyncio.run(mix(server.port, runs, polled))
        cost = before.each(used(server), sum(len(each.latencies) for each in seen.values()))
    same = kept(world, runs)[2]
    fine = all(set(each.statuses) <= {200, 304} for each in seen.values())
    met = fine and same and all(each.percentile(99) < 200 for each in seen.values())
    return {**{name: each.brief() for name, each in seen.items()}, **cost, "points_same": same, "met": met}
