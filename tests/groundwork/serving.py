"""A real `groundwork serve` under test, and what is left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "groundwork.cli"]


def clean_environment(**settings: str) -> dict[str, str]:
    """Ours without anybody's settings, then these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDWORK_")}
    return kept | {f"GROUNDWORK_{key.upper()}": value for key, value in settings.items()}


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    environment = clean_environment(**settings)
    return subprocess.run([*CLI, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)


def eventually(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer of `what`."""
    until = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return answer


def living(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Served:
    """`groundwork serve` on a folder, a free port."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.console = folder, folder.with_name(f"{folder.name}.console")
        scaled = {"lease_seconds": "6", "heartbeat_seconds": "0.5", "reconcile_seconds": "1"} | settings
        with self.console.open("wb") as out:
            command = [*CLI, "serve", "--data-dir", str(folder), "--port", "0"]
            self.process = subprocess.Popen(
                command, env=clean_environment(**scaled), cwd=ROOT, stdout=out, stderr=out, start_new_session=True
            )

    def ready(self) -> Served:
        """Wait for its `Ready` line."""
        eventually(lambda: "Ready on" in self.printed() or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.printed()
        return self

    def printed(self) -> str:
        return self.console.read_text()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "serve.json").read_text())
        return found

    def pids(self) -> dict[str, int]:
        return {name: pid for name, pid in self.state()["pids"].items() if pid}

    def status(self, path: str) -> int:
        with urllib.request.urlopen(self.state()["url"] + path, timeout=10) as reply:
            return int(reply.status)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
