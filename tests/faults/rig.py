"""The platform as separate processes that a test may kill, stop, cut off and start again, each on its own.

An API, workers in folders of their own (hosts, as far as they can tell), a Valkey, and SQLite or PostgreSQL. Times are
scaled down; the rules are those of production.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.platform import Platform
from groundwork.folder import free_port
from tests.app.conftest import ROOT, SECRETS, environment, fill, make_settings
from tests.app.jobs_world import pretrain_body, ready_dataset
from tests.faults.history import History, Witness
from tests.services import TEMPLATE, Postgres, Valkey, die_with_parent, short_folder, wait_for

LEASE = 10.0
TIMES = {
    "lease_seconds": LEASE, "heartbeat_seconds": 1.5, "reconcile_seconds": 0.5, "backoff_seconds": 0.05,
    "cancel_grace_seconds": 3.0, "max_infra_losses": 50, "log_level": "INFO",
}  # fmt: skip
TERMINAL = {"succeeded", "failed", "cancelled"}


class Rig:
    """Started by `started`; every part may be None for a while.

    Args:
        folder: of this test's own.
        database: `sqlite` or `postgresql`.
        template: a SQLite file with every table.
    """

    def __init__(self, folder: Path, database: str, template: Path, **changes: Any) -> None:
        self.folder = folder
        self.postgres = Postgres() if database == "postgresql" else None
        self.valkey = Valkey()
        if self.postgres:
            self.postgres.make_template()
            url = self.postgres.create(TEMPLATE)
        else:
            shutil.copy(template, folder / "groundwork.db")
            url = f"sqlite:///{folder / 'groundwork.db'}"
        self.code = ROOT  # the tree of the program that is started from now on
        self.prefixes: dict[str, list[str]] = {}  # what the commands of these processes begin with
        port = free_port()
        self.settings = make_settings(url, folder, broker_url=self.valkey.url, port=port, **(TIMES | changes))
        self.url = f"http://127.0.0.1:{port}"
        self.api: subprocess.Popen[bytes] | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._reach: dict[str, dict[str, str]] = {}
        # Beside the rig's folder, whose name is to be in no answer and whose disk may be full.
        self._side = short_folder()
        self.trace = self._side / "trace.txt"
        self.trace.touch()
        self.platform = Platform.open(self.settings)
        self.project, key, _, other = fill(self.platform)
        self.dataset = ready_dataset(self.platform, self.project)
        self.history = History(self._side / "history.jsonl", (*SECRETS.values(), other, str(folder)))
        self.key = key
        self.client = Witness(self.url, key, self.history)

    def start_api(self, module: str = "app.main", wait: bool = True, **extra: str) -> None:
        """Start it on the rig's port; `extra`: environment."""
        env = environment(self.settings) | {"GROUNDWORK_PORT": self.url.rpartition(":")[2]} | extra
        self.api = self._spawn("api", [sys.executable, "-m", module], env)
        if wait:
            wait_for(self.answers, 90)

    def start_worker(self, name: str = "w1", shifted: float = 0, **changes: str) -> None:
        """Start it, or start it again as it was; `shifted`: seconds by which its clock is wrong."""
        self._reach[name] = self._reach.get(name, {}) | changes
        given = {
            "data_dir": str(self.folder / name), "api_url": self.url, "engine_module": "tests.faults.engine",
            "worker_token": SECRETS["worker_token"], "broker_url": self.valkey.url, "poll_seconds": "0.2",
            "report_seconds": "60", "drain_seconds": "10", "grace_seconds": "3",
            "sandbox": "off",  # the engine keeps its trace beside the run
            **self._reach[name],
        }  # fmt: skip
        (self.folder / name).mkdir(exist_ok=True)
        env = dict(os.environ) | {f"GROUNDWORK_{k.upper()}": v for k, v in given.items()}
        module = "tests.faults.shifted" if shifted else "worker.main"
        env |= {"SHIFTED": str(shifted), "SHIFTED_MAIN": "worker.main"} if shifted else {}
        self.workers[name] = self._spawn(name, [sys.executable, "-m", module], env)

    def kill_api(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal it and wait for its end."""
        if self.api is not None:
            _end(self.api, number)

    def kill_worker(self, name: str = "w1", number: signal.Signals = signal.SIGKILL) -> None:
        """Signal it and wait for its end."""
        if name in self.workers:
            _end(self.workers[name], number)

    def answers(self) -> bool:
        """Whether the API is there."""
        assert self.api is None or self.api.poll() is None, (self.folder / "api.log").read_text()[-3000:]
        with contextlib.suppress(Exception):
            return self.client.http.get("/healthz", timeout=2).status_code == 200
        return False

    def body(self, steps: int = 30, delay: float = 0.02, **plan: object) -> dict[str, Any]:
        """A job of the chain engine."""
        told = {"steps": steps, "delay": delay, "checkpoint_every": 5, "trace": self.trace} | plan
        return pretrain_body(self.dataset, metadata={name: str(value) for name, value in told.items()})

    def submit(self, steps: int = 30, delay: float = 0.02, **plan: object) -> str:
        """The id of a new job, whatever it takes."""
        reply = self.client.insist("POST", "/v1/jobs", json=self.body(steps, delay, **plan))
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def wait(self, job: str, seconds: float = 150, until: set[str] | None = None) -> dict[str, Any]:
        """The job once it is in one of these states, usually: ended."""
        end = time.monotonic() + seconds
        while (found := self.client.job(job))["status"] not in (until or TERMINAL):
            assert time.monotonic() < end, f"{job} is still {found['status']} after {seconds:g} s:\n{self.tails()}"
            time.sleep(0.05)
        return found

    def wait_step(self, job: str, step: int, seconds: float = 90) -> None:
        """Until an attempt has done this step."""

        def done() -> bool:
            return any(run.startswith(job) and at >= step for run, _, at, _ in self.traced())

        try:
            wait_for(done, seconds)
        except TimeoutError:
            raise AssertionError(f"{job} did not reach step {step}:\n{self.tails()}") from None

    def traced(self) -> list[tuple[str, int, int, float]]:
        """(run, pid, step, seconds) of every step that any attempt did."""
        lines = [line.split() for line in self.trace.read_text().splitlines()]
        return [(run, int(pid), int(step), float(at)) for run, pid, step, at in lines]

    def endings(self, job: str, seconds: float = 150) -> list[str]:
        """How each attempt ended, once the job has; with the reason where that was no success."""
        attempts = self.wait(job, seconds)["attempts"]
        return [a["outcome"] + ("" if a["outcome"] == "succeeded" else f": {a['reason']}") for a in attempts]

    def signal(self, pid: int, number: signal.Signals) -> None:
        """To one process, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def forget_steps_after_waking(self, job: str) -> None:
        """Drop from the trace what the first attempt did once the second had begun."""
        began = min(at for run, _, _, at in self.traced() if run == f"{job}-2")
        lines = self.trace.read_text().splitlines()
        kept = [each for each in lines if not (each.startswith(f"{job}-1 ") and float(each.split()[3]) > began)]
        assert len(lines) - len(kept) <= 3, "it trained on after it woke"
        self.trace.write_text("\n".join(kept) + "\n")

    def tails(self) -> str:
        """The last words of every process."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in self.folder.glob("*.log"))

    def stop(self) -> None:
        """Stop what runs; nothing is left."""
        for process in (*self.workers.values(), *([self.api] if self.api else [])):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            _end(process, signal.SIGKILL)
        self.client.close()
        self.platform.close()
        self.valkey.stop()
        if self.postgres:
            self.postgres.stop()
        shutil.rmtree(self._side, ignore_errors=True)

    def _spawn(self, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as out:
            return subprocess.Popen(
                [*self.prefixes.get(name, []), *command], cwd=self.code,
                env=env | {"PYTHONPATH": str(self.code)}, stdout=out, stderr=out, preexec_fn=die_with_parent,
            )  # fmt: skip


def started(folder: Path, database: str, template: Path, **changes: Any) -> Iterator[Rig]:
    """A rig with an API and one worker."""
    rig = Rig(folder, database, template, **changes)
    try:
        rig.start_api()
        rig.start_worker()
        yield rig
    finally:
        rig.stop()


def later(seconds: float, what: Any) -> threading.Timer:
    """Call it in a while, from a thread: nothing that starts a process, which would die with the thread."""
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()
    return timer


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
    process.wait(timeout=40)
