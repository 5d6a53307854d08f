"""Rows of the whole machine: L3 uploads, L4 embeddings over a real inference role, L10 start and idle memory."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.api.load import closed_loop, open_loop, wire
from benchmarks.api.rows_reading import over, polls
from benchmarks.api.server import WORKER_TOKEN, Server, children, on_core, rss_mb, used
from benchmarks.api.world import World
from benchmarks.upload import BLOCK, send
from tests.services import die_with_parent

STREAMS, MEGABYTES = 16, 256
CLIENTS, ITEMS = 32, 64
BACKBONE: dict[str, Any] = {"name": "custom", "family": "transformer", "width": 256, "depth": 6, "heads": 4}
"""Of 4.9 million weights."""


def machine_rate(folder: Path, megabytes: int, core: int) -> float:
    """MB/s of sha256 and a write to the same disk, alone on the server's core."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    digest, began = hashlib.sha256(), time.perf_counter()
    with (folder / "rate").open("wb") as out:
        for _ in range(megabytes):
            digest.update(BLOCK)
            out.write(BLOCK)
        out.flush()
        os.fsync(out.fileno())
    seconds = time.perf_counter() - began
    os.sched_setaffinity(0, mine)
    (folder / "rate").unlink()
    return megabytes / seconds


def l3(world: World) -> dict[str, Any]:
    """16 uploads at once, polls meanwhile."""
    megabytes = max(8, round(MEGABYTES * world.scale))
    rate = machine_rate(world.folder, megabytes * 4, world.cores[0])
    with world.api() as server:
        polled = over(polls(world, server.port))
        asyncio.run(open_loop(server.port, polled, 50, 3))
        send(server.port, world.keys[0], 4)
        first, top, done = rss_mb(server.pid), [0.0], threading.Event()
        arguments = (server.port, world.keys[0], megabytes)
        senders = [multiprocessing.Process(target=send, args=arguments) for _ in range(STREAMS)]
        before, began = used(server), time.perf_counter()
        ended: list[float] = []

        def wait() -> None:
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            ended.append(time.perf_counter())
            done.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        latencies: list[float] = []
        while not done.is_set():
            latencies += asyncio.run(open_loop(server.port, polled, 50, 1)).latencies
            top[0] = max(top[0], rss_mb(server.pid))
        waiter.join()
        cost = used(server)
    if any(sender.exitcode for sender in senders):
        raise SystemExit("an upload failed")
    reached = STREAMS * megabytes / (ended[0] - began)
    p99 = sorted(latencies)[int(len(latencies) * 0.99)] * 1000
    growth = top[0] - first
    return {
        "streams": STREAMS, "megabytes_each": megabytes, "mb_per_second": round(reached, 1),
        "machine_mb_per_second": round(rate, 1), "share": round(reached / rate, 2), "poll_p99_ms": round(p99, 1),
        "cpu_ms_per_mb": round((cost.server - before.server) * 1000 / (STREAMS * megabytes), 2),
        "rss_growth_mb": round(growth, 1), "met": reached >= 0.7 * rate and growth < 50 and p99 < 200,
    }  # fmt: skip


def l4(world: World) -> dict[str, Any]:
    """32 clients that each ask for one vector at a time; the same items in the model alone; then too many at once."""
    from ssl_core.backbones import EncoderSpec
    from tests.app import registered  # these bring torch, which no other row should hold
    from tests.inference_role import free_url, start_role, stop_role
    from tests.model_folders import text_model, texts

    folder = text_model(world.folder / "model", max_length=64, backbone=EncoderSpec(**BACKBONE))
    url, seconds = free_url(), world.seconds(15, 5)
    model, items = registered.model(world.platform, world.projects[0], folder), texts(ITEMS)
    asked = [wire("POST", "/v1/embeddings", world.keys[0], {"model": model, "input": item}) for item in items]
    with world.api(INFERENCE_URL=url) as server:
        with on_core(world.cores[0]):
            role = start_role(
                f"http://127.0.0.1:{server.port}", url, world.folder, inference_requests=64, inference_threads=1
            )
        try:
            asyncio.run(closed_loop(server.port, over(asked), 8, 2))
            before, beside = used(server), _cpu(role.pid)
            seen = asyncio.run(closed_loop(server.port, over(asked), CLIENTS, seconds))
            after, behind = used(server), _cpu(role.pid)
            flood = asyncio.run(open_loop(server.port, over(asked), 4 * len(seen.latencies) / seconds, 3, 400))
        finally:
            stop_role(role)
    bare = _bare(folder, items)
    count = len(seen.latencies)
    api_ms, role_ms = before.each(after, count)["cpu_ms"], round((behind - beside) * 1000 / count, 3)
    over_bare = round((api_ms + role_ms) / bare - 1, 2)
    met = seen.percentile(99) < 250 and over_bare <= 0.2 and set(flood.statuses) <= {200, 503}
    return {
        **seen.brief(), "api_cpu_ms": api_ms, "role_cpu_ms": role_ms, "bare_cpu_ms": bare, "over_bare": over_bare,
        "flood": flood.brief(), "met": met,
    }  # fmt: skip


def _bare(folder: Path, items: list[str]) -> float:
    """CPU-milliseconds of one item in batches of 32, in the model alone."""
    import torch

    from ssl_core.inference import load
    from ssl_core.machine import keep_freed_memory

    keep_freed_memory()  # as the role does
    torch.set_num_threads(1)
    model = load(folder)
    model.embed(items[:CLIENTS])
    began, rounds = time.process_time(), 20
    for _ in range(rounds):
        for first in range(0, len(items), CLIENTS):
            model.embed(items[first : first + CLIENTS])
    return round((time.process_time() - began) * 1000 / (rounds * len(items)), 3)


def _cpu(pid: int) -> float:
    return used(Server(pid, 0)).server


def l10(world: World) -> dict[str, Any]:
    """From the start of the process to the first connection that it takes, and what API and worker hold when idle."""
    starts, idle = [], []
    for _ in range(3):
        with world.api() as server:
            starts.append(round(server.start_seconds, 2))
            time.sleep(2)
            idle.append(rss_mb(server.pid))
            worker = _worker_rss(world, server.port) if len(starts) == 3 else 0.0
    met = median(starts) < 3 and median(idle) < 150 and worker < 120
    return {"start_seconds": starts, "api_idle_mb": idle, "worker_idle_mb": worker, "met": met}


def _worker_rss(world: World, port: int) -> float:
    named = {
        "GROUNDWORK_API_URL": f"http://127.0.0.1:{port}", "GROUNDWORK_WORKER_TOKEN": WORKER_TOKEN,
        "GROUNDWORK_DATA_DIR": str(world.folder / "worker"), "GROUNDWORK_QUEUE": "gpu", "GROUNDWORK_BROKER_URL": "",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.main"], env={**os.environ, **named}, preexec_fn=die_with_parent,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(6)
    if process.poll() is not None:
        raise SystemExit("the worker did not stay")
    found = rss_mb(process.pid) + sum(rss_mb(child) for child in children(process.pid))
    process.terminate()
    process.wait(60)
    return round(found, 1)
