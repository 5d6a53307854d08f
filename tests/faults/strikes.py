"""The faults of a soak, each a function: it begins one, waits for as long as it lasts, and ends it."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Callable

import psycopg
from celery import Celery
from kombu import Connection
from sqlalchemy import select

from app.jobs.tables import Job
from app.platform import read_scope
from tests.faults.disks import fill, free
from tests.faults.invariants import engines
from tests.faults.proxy import Mode, Proxy
from tests.faults.rig import LEASE, Rig

WORKERS = ("w1", "w2")
MODES: tuple[Mode, ...] = (
    "refuse", "swallow", "swallow_requests", "swallow_answers", "delay", "cut_answers", "lossy",
)  # fmt: skip


class Storm:
    """A rig with a proxy before each worker, and what can happen to them.

    Args:
        rig: nothing of it runs yet.
        seed: of what the proxies lose.
        small_store: whether the store lies on a disk that may be filled.
    """

    def __init__(self, rig: Rig, seed: int, small_store: bool) -> None:
        self.rig, self.small_store = rig, small_store
        port = int(rig.url.rpartition(":")[2])
        self.proxies = {name: Proxy(port, seed) for name in WORKERS}

    def start(self) -> None:
        """API and workers."""
        self.rig.start_api()
        for name in WORKERS:
            self.rig.start_worker(name, api_url=self.proxies[name].url)

    def strike(self, name: str, lasts: float, seed: int) -> None:
        """One fault from its begin to its end; what it killed runs again afterwards."""
        of("all")[name](self, lasts, random.Random(seed))

    def heal(self) -> None:
        """Everything runs."""
        for proxy in self.proxies.values():
            proxy.mode = "pass"
        if self.rig.api is None or self.rig.api.poll() is not None:
            self.rig.start_api()
        for name in WORKERS:
            if self.rig.workers[name].poll() is not None:
                self.rig.start_worker(name)

    def stop(self) -> None:
        """Everything ends."""
        self.rig.stop()
        for proxy in self.proxies.values():
            proxy.close()


def kill_api(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F1 to F3."""
    storm.rig.kill_api()
    time.sleep(lasts if draw.random() < 0.3 else 0.0)
    storm.rig.start_api()


def drain_api(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F23."""
    storm.rig.kill_api(signal.SIGTERM)
    storm.rig.start_api()


def kill_worker(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F4."""
    name = draw.choice(WORKERS)
    storm.rig.kill_worker(name)
    time.sleep(lasts if draw.random() < 0.5 else 0.0)
    storm.rig.start_worker(name)


def drain_worker(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F21."""
    name = draw.choice(WORKERS)
    storm.rig.kill_worker(name, signal.SIGTERM)
    storm.rig.start_worker(name)


def kill_engine(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F6."""
    for pid in engines(storm.rig.folder)[:1]:
        storm.rig.signal(pid, draw.choice([signal.SIGKILL, signal.SIGSEGV]))


def kill_broker(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F7, F8."""
    storm.rig.valkey.kill()
    time.sleep(lasts)
    storm.rig.valkey.start()


def flush_broker(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F7."""
    with Connection(storm.rig.valkey.url) as connection:
        connection.default_channel.client.flushall()


def ring_again(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F11."""
    with read_scope(storm.rig.platform) as session:
        jobs = list(session.scalars(select(Job.id).order_by(Job.id.desc()).limit(5)))
    with Celery(broker=storm.rig.valkey.url, set_as_current=False) as bell:
        for job in jobs * 10:
            bell.send_task("groundwork.ring", args=[job], queue="cpu", ignore_result=True)


def cut_off(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F14, F15."""
    proxy, mode = storm.proxies[draw.choice(WORKERS)], draw.choice(MODES)
    print(f"           {mode}", flush=True)
    proxy.mode = mode
    time.sleep(lasts)
    proxy.mode = "pass"


def pause_worker(storm: Storm, lasts: float, draw: random.Random) -> None:
    """A host that stands still for less than its lease. Longer: test_network.py, with the engine stopped too."""
    pid = storm.rig.workers[draw.choice(WORKERS)].pid
    storm.rig.signal(pid, signal.SIGSTOP)
    time.sleep(min(lasts, 0.3 * LEASE))
    storm.rig.signal(pid, signal.SIGCONT)


def fill_disk(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F17, where the store lies on a small disk of its own."""
    if storm.small_store:
        store = storm.rig.folder / "store"
        fill(store)
        time.sleep(lasts)
        free(store)


def hold_lock(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F10."""
    holder = sqlite3.connect(storm.rig.folder / "groundwork.db", isolation_level=None, timeout=30)
    holder.execute("BEGIN IMMEDIATE")
    time.sleep(lasts)
    holder.execute("ROLLBACK")
    holder.close()


def kill_database(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F9."""
    assert storm.rig.postgres is not None
    storm.rig.postgres.kill()
    time.sleep(lasts if draw.random() < 0.3 else 0.0)
    storm.rig.postgres.start()


def drop_connections(storm: Storm, lasts: float, draw: random.Random) -> None:
    """F9."""
    assert storm.rig.postgres is not None
    with psycopg.connect(storm.rig.postgres._address("postgres"), autocommit=True) as operator:
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 't%'")


ANYWHERE = (
    kill_api, drain_api, kill_worker, drain_worker, kill_engine, kill_broker, flush_broker, ring_again, cut_off,
    pause_worker, fill_disk,
)  # fmt: skip
ONLY = {"sqlite": (hold_lock,), "postgresql": (kill_database, drop_connections)}


def of(database: str) -> dict[str, Callable[[Storm, float, random.Random], None]]:
    """By name, those that can happen on this database, or `all`."""
    some = [each for name, found in ONLY.items() if database in (name, "all") for each in found]
    return {each.__name__: each for each in (*ANYWHERE, *some)}
