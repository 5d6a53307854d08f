"""What a host knows of its processes: who is alive, who belongs to a run, and how to end them all.

`kill -0` is no sign of life (a zombie answers it) and a pid alone is no identity (pids come round again), so a process
is named by pid and start time, and read from /proc. Without /proc (macOS) the pid has to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

PROC = Path("/proc")
RUN_VARIABLE = "GROUNDWORK_RUN"


def start_time(pid: int) -> str | None:
    """Ticks after boot at which `pid` started; None where it is gone or a zombie."""
    if not PROC.joinpath("self").exists():
        return _without_proc(pid)
    try:
        fields = PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def is_alive(pid: int, started: str) -> bool:
    """Whether that very process still runs."""
    return start_time(pid) == started


def boot_id() -> str:
    """Changes with every start of the machine."""
    try:
        return PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def members(run: Path) -> list[int]:
    """Every process whose environment carries `GROUNDWORK_RUN=run`: the engine's children, whatever their session."""
    mark = f"{RUN_VARIABLE}={run}".encode()
    found = []
    for entry in PROC.glob("[0-9]*") if PROC.exists() else ():
        with contextlib.suppress(OSError):
            if mark in entry.joinpath("environ").read_bytes().split(b"\0") and start_time(int(entry.name)):
                found.append(int(entry.name))
    return found


def end_run(run: Path, group: int | None, seconds: float = 5.0) -> bool:
    """SIGKILL a run's process group and every stray of it. True once none is left."""
    until = time.monotonic() + seconds
    while True:
        if group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        strays = members(run)
        for pid in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not strays or time.monotonic() > until:
            return not strays
        group = None  # killed for sure; its number may come round again
        time.sleep(0.05)


def oom_kills() -> int:
    """How often the kernel killed for memory in this process's cgroup so far; 0 where it does not say."""
    counters = [Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")]
    try:
        own = PROC.joinpath("self/cgroup").read_text().splitlines()
    except OSError:
        own = []
    for line in own:
        _, names, path = line.split(":", 2)
        if names == "":
            counters.append(Path(f"/sys/fs/cgroup{path}/memory.events"))
        elif "memory" in names.split(","):
            counters.append(Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"))
    return sum(_oom_count(path) for path in set(counters))


def _oom_count(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        pairs = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
        return int(pairs.get("oom_kill", 0))
    return 0


def _without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
