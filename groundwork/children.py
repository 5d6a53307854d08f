"""Child processes of `groundwork serve`: started so that they cannot outlive it, started again when they die."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

STEADY_SECONDS = 30.0  # up this long, and the next fall starts the backoff anew
LOG_BYTES = 50 * 2**20


@dataclass
class Child:
    """One role's process.

    Args:
        name: shown on the console and in serve.json.
        command: program and arguments; never a secret (R26).
        environment: all of it; secrets travel here.
        log: file that takes its output.
        keep: file descriptors it inherits.
        last_signal: what the kernel sends it when the supervisor dies.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    keep: tuple[int, ...] = ()
    last_signal: signal.Signals = signal.SIGKILL
    falls: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started_at: float = 0.0
    _start_at: float = 0.0

    def start(self) -> None:
        """Start it in its own session: Ctrl-C reaches the supervisor alone, which then drains in order."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        launch = [sys.executable, "-I", "-S", _launcher(), str(os.getpid()), str(int(self.last_signal)), "-", "-", "--"]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [*launch, *self.command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment,
                pass_fds=self.keep, start_new_session=True,
            )  # fmt: skip
        self._started_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def ending(self) -> str | None:
        """How it ended, in words; None while it runs or before its first start."""
        code = self._process.poll() if self._process else None
        if code is None:
            return None
        return f"killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit status {code}"

    def restart_if_due(self) -> str | None:
        """Start a dead child again, after a pause that grows with every fall. A line for the console, or None."""
        ending = self.ending()
        if ending is None:
            return None
        now = time.monotonic()
        if not self._start_at:
            self.falls = 1 if now - self._started_at > STEADY_SECONDS else self.falls + 1
            self._start_at = now + min(0.1 * 2 ** (self.falls - 1), 30)
            return f"{self.name} ended: {ending}; starting it again"
        if now >= self._start_at:
            self._start_at = 0.0
            self.start()
        return None

    def last_words(self) -> str:
        """The last line it wrote."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """False if it still runs after `seconds`."""
        try:
            if self._process:
                self._process.wait(timeout=max(seconds, 0))
        except subprocess.TimeoutExpired:
            return False
        return True


def _launcher() -> str:
    found = importlib.util.find_spec("worker.launch")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("worker.launch")
    return found.origin
