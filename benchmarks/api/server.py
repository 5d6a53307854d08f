"""The servers under load, each a process on its own core, and what the kernel says that they used."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.inference_role import TOKEN
from tests.services import die_with_parent

TICKS = os.sysconf("SC_CLK_TCK")
WORKER_TOKEN = TOKEN
"""The token that the inference role is started with, too."""
SECRET_KEY = "secret-key-of-the-benchmark"


@dataclass
class Server:
    """A process that answers HTTP, and the database server behind it (None: SQLite, in the process itself)."""

    pid: int
    port: int
    database_pid: int | None = None
    start_seconds: float = 0.0


@dataclass(frozen=True)
class Used:
    """CPU seconds since a process began."""

    server: float
    database: float

    def each(self, later: Used, requests: int) -> dict[str, float]:
        """CPU-milliseconds of each request between two looks."""
        count = max(requests, 1)
        return {
            "cpu_ms": round((later.server - self.server) * 1000 / count, 3),
            "database_cpu_ms": round((later.database - self.database) * 1000 / count, 3),
        }


def used(server: Server) -> Used:
    """By /proc; of a database server with its children, those that have ended included."""
    database = 0.0
    if server.database_pid is not None:
        database = _cpu(server.database_pid, ended=True) + sum(_cpu(pid) for pid in children(server.database_pid))
    return Used(_cpu(server.pid), database)


def children(pid: int) -> list[int]:
    """Of one process."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rss_mb(pid: int) -> float:
    """Resident megabytes (MiB)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else 0.0


def held(server: Server) -> dict[str, float]:
    """What a process holds now."""
    threads = re.search(r"Threads:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
    clients = len(children(server.database_pid)) if server.database_pid else 0
    files = len(os.listdir(f"/proc/{server.pid}/fd"))
    return {
        "rss_mb": rss_mb(server.pid), "files": files, "threads": int(threads[1]) if threads else 0,
        "database_processes": clients,
    }  # fmt: skip


@contextmanager
def api(folder: Path, database: str, core: int, settings: dict[str, str]) -> Iterator[Server]:
    """`app.main`, as the roles run it; `database` is a SQLAlchemy URL."""
    port = free_port()
    named = {
        "DATA_DIR": str(folder), "PORT": str(port), "WORKER_TOKEN": WORKER_TOKEN, "SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": database, "MAX_QUEUED_JOBS": "10000000", "REQUESTS_PER_MINUTE": "0", "LOG_LEVEL": "WARNING",
        "MIN_FREE_BYTES": "0", **settings,
    }  # fmt: skip
    environment = {f"GROUNDWORK_{name}": value for name, value in named.items()}
    with started(["-m", "app.main"], port, core, environment, folder / "api.log") as server:
        yield server


@contextmanager
def started(command: list[str], port: int, core: int, more: dict[str, str], log: Path) -> Iterator[Server]:
    """A process on one core, once it accepts connections: our Python with arguments, or any program by its path."""
    program = [] if command[0].startswith("/") else [sys.executable]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GROUNDWORK_")}
    began = time.perf_counter()
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*program, *command], env={**environment, **more, "OMP_NUM_THREADS": "1"}, stdout=out, stderr=out,
            preexec_fn=die_with_parent,
        )  # fmt: skip
    os.sched_setaffinity(process.pid, {core})
    try:
        while not _accepts(port):
            if process.poll() is not None or time.perf_counter() - began > 120:
                raise SystemExit(f"{command} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.01)
        yield Server(process.pid, port, start_seconds=time.perf_counter() - began)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started within stays on that core, with every thread that it begins."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def _cpu(pid: int, ended: bool = False) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(int(each) for each in fields[11 : 15 if ended else 13]) / TICKS
