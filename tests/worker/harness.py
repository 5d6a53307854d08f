"""What the worker's tests share: settings scaled to seconds, a supervisor in this process, a worker in its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.worker.door import TOKEN, StandIn
from worker.processes import members
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
ENGINE = "tests.worker.fake_engine"


def settings(door: StandIn, folder: Path, **changes: Any) -> WorkerSettings:
    fixed = {"data_dir": folder, "api_url": door.url, "worker_token": TOKEN, "engine_module": ENGINE, "broker_url": ""}
    return WorkerSettings(**(fixed | {"poll_seconds": 0.1, "report_seconds": 20} | changes))


def eventually(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true answer of `what`; fails when there is none in time."""
    until = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return answer


def engines(folder: Path, run: str = "job_1-1") -> list[int]:
    """Live processes of a run of the worker whose data folder this is."""
    return members(folder / "worker" / "runs" / run)


class InThread:
    """A supervisor that works one bell off in a thread, so that the test can disturb it."""

    def __init__(self, door: StandIn, folder: Path, **changes: Any) -> None:
        self.settings = settings(door, folder, **changes)
        self.supervisor = Supervisor(self.settings)
        self.thread = threading.Thread(target=self.supervisor.ring, args=(None,), daemon=True)
        self.thread.start()

    def join(self, seconds: float = 30.0) -> None:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the attempt did not end"


class WorkerProcess:
    """`python -m worker.main` with its log in a file."""

    def __init__(self, door: StandIn, folder: Path, **changes: Any) -> None:
        given = {"data_dir": folder, "api_url": door.url, "worker_token": TOKEN, "engine_module": ENGINE}
        given |= {"broker_url": "", "poll_seconds": 0.1} | changes
        environment = os.environ | {f"GROUNDWORK_{key.upper()}": str(value) for key, value in given.items()}
        self.log = folder / "worker.log"
        self.alive = folder / "worker" / "alive"
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "worker.main"]
            self.process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)
