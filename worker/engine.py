"""One engine run as a process: started in its own session, watched, asked to stop, killed (docs/contracts.md §2)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import worker
from worker import processes
from worker.sandbox import ground
from worker.settings import WorkerSettings

StopWord = Literal["cancel", "pause", "drain"]
# All that the engine may know of our environment. Everything else may be a secret (R26).
PASSED_ON = (
    "PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CXX", "CC",
    "GROUNDWORK_ALLOW_HUB", "HF_ENDPOINT",
    "GROUNDWORK_ENGINE_FAULT",
)  # fmt: skip
PASSED_ON_PREFIXES = ("LC_", "OMP_", "MKL_", "KMP_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH_", "PYTORCH_", "OPENBLAS_")
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Lets the kernel back the engine's memory with pages of 2 MiB, of which a training step touches fewer: some 3 % of it.
Only a process's start can set it; a C library that does not know it passes it over."""

NO_ROOM = 1 << 20  # with fewer bytes free than this, an engine that ended without a word had nowhere to write it


class Engine:
    """The engine process of one run directory.

    Args:
        run: an existing directory with `run.json`.
        settings: the module to run, limits, niceness.
    """

    def __init__(self, run: Path, settings: WorkerSettings) -> None:
        self.run = run
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._oom_before = 0
        self.asked: StopWord | None = None
        self._asked_at = 0.0
        self.killed_by_us = False

    def start(self) -> tuple[int, str]:
        """Its pid and start time. The calling thread must outlive it: the death signal follows threads."""
        self._oom_before = processes.oom_kills()
        environment = _environment(self.run)
        limits, ground = self.bounds(environment)
        launcher = str(Path(__file__).with_name("launch.py"))
        program = [sys.executable, "-P", "-m", self._settings.engine_module, str(self.run)]
        command = [
            sys.executable, "-I", "-S", launcher, str(os.getpid()), str(int(signal.SIGKILL)), limits, ground, "--",
            *program,
        ]  # fmt: skip
        # Append mode: the log can be cut while the engine writes it, and its next line then starts at the new end.
        with (self.run / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.run,
                env=environment, start_new_session=True,
            )  # fmt: skip
        return self._process.pid, processes.start_time(self._process.pid) or ""

    def bounds(self, environment: dict[str, str]) -> tuple[str, str]:
        """The launcher's words for the limits and the ground of a run that has its `run.json`."""
        caps = self._settings
        order = json.loads((self.run / "run.json").read_bytes())
        limits = f"nice={caps.nice},core=0,fsize={caps.max_file_bytes},nofile={caps.max_open_files}"
        if order["spec"].get("type") == "ingest":
            limits += f",data={caps.ingest_memory_bytes}"
        if caps.sandbox == "off":
            return limits, "-"
        return limits, json.dumps(ground(self.run, order, environment, (caps.data_dir, caps.root)))

    def returncode(self) -> int | None:
        """None while it runs; negative = the signal that ended it."""
        return self._process.poll() if self._process else None

    def ask(self, word: StopWord) -> None:
        """Save and leave. A second word is passed on, but the grace period runs from the first."""
        if self._process is None or self.asked == word:
            return
        self._asked_at = self._asked_at or time.monotonic()
        self.asked = word
        waiting = self.run / "stop.part"
        waiting.write_text(word)
        waiting.replace(self.run / "stop")
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def asked_for(self) -> float:
        """Seconds since it was first asked to stop."""
        return time.monotonic() - self._asked_at if self.asked else 0.0

    def dump_stacks(self) -> None:
        """The engine's faulthandler writes every thread's stack to the log on SIGUSR1."""
        if self._process and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """SIGKILL to the group and to whatever of the run left it. Returns when all are gone."""
        if self._process is None:
            return
        self.killed_by_us = self.killed_by_us or self._process.poll() is None
        processes.end_run(self.run, self._process.pid)
        self._process.wait()

    def verdict(self) -> dict[str, Any]:
        """`result.json`, or what an engine that left none must have died of."""
        try:
            with (self.run / "result.json").open() as stream:
                found = json.load(stream)
        except FileNotFoundError:
            return {"status": "failed", "error": self._post_mortem()}
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("status") not in ("succeeded", "stopped", "failed"):
            return _failure("infra", "bad_result", "The training process left a result that cannot be read.")
        return found

    def _post_mortem(self) -> dict[str, Any]:
        code = self.returncode() or 0
        killed = code in (-signal.SIGKILL, 128 + signal.SIGKILL) and not self.killed_by_us
        if killed and processes.oom_kills() > self._oom_before:
            message = "The machine ran out of memory and killed the training; use a smaller batch or model."
            return dict(_failure("oom", "out_of_memory", message)["error"])
        if code > 0 and shutil.disk_usage(self.run).free < NO_ROOM:
            return dict(_failure("infra", "disk_full", "The worker's disk is full; free some room on it.")["error"])
        name = f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else ""
        how = name or f"ended with exit status {code}"
        # A kill comes from outside and is bad luck; a crash at the same step twice is the job's own doing (R11).
        kind = "engine_killed" if code in (-signal.SIGKILL, 128 + signal.SIGKILL) else "engine_crashed"
        return dict(_failure("infra", kind, f"The training process {how} and left no result.")["error"])


def _failure(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"status": "failed", "error": {"class": kind, "code": code, "message": message, "param": None}}


def _environment(run: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in PASSED_ON or k.startswith(PASSED_ON_PREFIXES)}
    scratch = run / "tmp"
    scratch.mkdir(exist_ok=True)
    ours = str(Path(worker.__file__).resolve().parents[1])
    path = os.pathsep.join(each for each in (ours, kept.get("PYTHONPATH", "")) if each)
    return kept | ALLOCATOR | {
        "HOME": str(scratch), "TMPDIR": str(scratch), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1", processes.RUN_VARIABLE: str(run),
    }  # fmt: skip
