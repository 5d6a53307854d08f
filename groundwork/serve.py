"""`groundwork serve`: broker, API, worker and inference under one supervisor, everything in one data folder.

Children die with this process even on kill -9, are started again when they fall, and are stopped in order: the worker
first, so that it can save and give its job back while the API still listens.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from groundwork import broker
from groundwork.children import Child
from groundwork.folder import DataFolder, Refusal, free_port, listen
from ssl_core.machine import cpu_precision

START_SECONDS = 60.0
DRAIN_SECONDS = 40  # the worker's share of a stop, unless GROUNDWORK_DRAIN_SECONDS says otherwise
TICK = 0.1
# What reaches the database, the store or the keys is the API's alone.
API_ONLY = ("GROUNDWORK_SECRET_KEY", "GROUNDWORK_DATABASE_URL", "GROUNDWORK_STORE_URL", "GROUNDWORK_LISTEN_FD")


def serve(path: Path, host: str, port: int) -> int:
    """Run until SIGINT or SIGTERM; 0 after an orderly stop.

    Raises:
        Refusal: it cannot start; the message says why in one line.
    """
    folder = DataFolder(path)
    listener = listen(host, port)
    server = Serve(folder, listener)
    try:
        server.start()
        return server.watch()
    finally:
        server.kill_all()
        folder.forget()


class Serve:
    """The children and their order.

    Args:
        folder: held by us alone.
        listener: the API's socket.
    """

    def __init__(self, folder: DataFolder, listener: socket.socket) -> None:
        self._folder, self._listener = folder, listener
        host, port = listener.getsockname()[:2]
        reach = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.url = f"http://{reach}:{port}"
        self._inference_url = f"http://127.0.0.1:{free_port()}"
        self._socket = folder.broker_socket()
        self._work = folder.path / "worker"
        self._shared = self._settings()
        self.children = self._make_children()
        self._signals = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def start(self) -> None:
        """Broker, then the schema, then the rest; prints the first key and `Ready`. Raises Refusal."""
        if broker_child := self.children.get("broker"):
            broker_child.start()
            self._wait_for("broker", lambda: broker.answers(self._socket))
        self._migrate()
        for name in ("api", "worker", "inference"):
            self.children[name].start()
        self._tell()
        alive = self._work / "alive"
        alive.unlink(missing_ok=True)
        self._wait_for("api", lambda: _healthy(self.url))
        self._wait_for("worker", alive.exists)
        self._wait_for("inference", lambda: _healthy(self._inference_url))
        if not self._signals:
            say(f"Ready on {self.url}   (documentation: {self.url}/docs, data: {self._folder.path})")

    def watch(self) -> int:
        """Restart what falls until told to stop; the exit status."""
        while not self._signals:
            self._mind()
            time.sleep(TICK)
        return self._stop()

    def kill_all(self) -> None:
        """The last resort; does nothing after an orderly stop."""
        for child in self.children.values():
            child.signal(signal.SIGKILL)
        for child in self.children.values():
            child.wait(5)

    def _settings(self) -> dict[str, str]:
        secrets = self._folder.secrets()
        environment = dict(os.environ)
        environment.setdefault("GROUNDWORK_BROKER_URL", broker.url(self._socket))
        environment.setdefault("GROUNDWORK_WORKER_TOKEN", secrets["worker_token"])
        environment.setdefault("GROUNDWORK_SECRET_KEY", secrets["secret_key"])
        environment.setdefault("GROUNDWORK_CPU_PRECISION", cpu_precision())  # its worker runs on this machine
        environment |= {
            "GROUNDWORK_DATA_DIR": str(self._folder.path), "GROUNDWORK_API_URL": self.url,
            "GROUNDWORK_INFERENCE_URL": self._inference_url, "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        return environment

    def _make_children(self) -> dict[str, Child]:
        ours = {k: v for k, v in self._shared.items() if k not in API_ONLY and not k.startswith("AWS_")}
        worker = {"GROUNDWORK_DRAIN_SECONDS": str(DRAIN_SECONDS), "GROUNDWORK_CACHE_DIR": str(self._work)} | ours
        inference = {k: v for k, v in ours.items() if k not in ("GROUNDWORK_BROKER_URL", "GROUNDWORK_DRAIN_SECONDS")}
        fd = self._listener.fileno()
        api = self._shared | {"GROUNDWORK_LISTEN_FD": str(fd)}
        children = {
            "api": self._role("api", api, keep=(fd,)),
            "worker": self._role("worker", worker),
            "inference": self._role("inference", inference),
        }
        if self._shared["GROUNDWORK_BROKER_URL"] == broker.url(self._socket):
            command = broker.command(self._folder.path / "broker", self._socket)
            log = self._folder.logs / "broker.log"
            children["broker"] = Child("broker", command, {"PATH": os.defpath}, log, last_signal=signal.SIGTERM)
        return children

    def _role(self, name: str, environment: dict[str, str], keep: tuple[int, ...] = ()) -> Child:
        command = [sys.executable, "-m", "groundwork.cli", name]
        return Child(name, command, environment, self._folder.logs / f"{name}.log", keep)

    def _migrate(self) -> None:
        command = [sys.executable, "-m", "groundwork.cli", "migrate"]
        done = subprocess.run(command, env=self._shared, capture_output=True, text=True)
        if done.returncode:
            words = done.stderr.strip().rpartition("\n")[2].removeprefix("groundwork: ")
            raise Refusal(words or "the migration failed")
        if done.stdout.strip():
            say(done.stdout.strip())

    def _wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + START_SECONDS
        while not self._signals and not ready():
            fallen = next((child for child in self.children.values() if child.ending()), None)
            if fallen or time.monotonic() > until:
                child = fallen or self.children[name]
                how = child.ending() or f"no answer after {START_SECONDS:g} s"
                raise Refusal(f"{child.name} did not start ({how}): {child.last_words()}   (log: {child.log})")
            time.sleep(TICK)

    def _mind(self) -> None:
        for child in self.children.values():
            before = child.pid
            if line := child.restart_if_due():
                say(line)
            if child.pid != before:
                self._tell()

    def _tell(self) -> None:
        pids = {name: child.pid for name, child in self.children.items()}
        environment = self.children["api"].environment
        told = {name: environment.get(f"GROUNDWORK_{name.upper()}", "") for name in ("broker_url", "inference_url")}
        self._folder.tell({"url": self.url, "pid": os.getpid(), "pids": pids, **told})

    def _stop(self) -> int:
        say("Stopping: the worker saves and gives its job back (once more Ctrl-C: stop at once)")
        drain = float(self.children["worker"].environment["GROUNDWORK_DRAIN_SECONDS"]) + 20
        for names, seconds in ((("worker",), drain), (("inference", "api"), 15.0), (("broker",), 10.0)):
            leaving = [self.children[name] for name in names if name in self.children]
            for child in leaving:
                child.signal(signal.SIGTERM)
            until = time.monotonic() + seconds
            while any(child.pid for child in leaving) and time.monotonic() < until:
                if self._signals > 1:
                    say("Stopped at once; running jobs go on from their last checkpoint at the next start")
                    return 1
                time.sleep(TICK)
        late = [child.name for child in self.children.values() if child.pid]
        say(f"Stopped; had to kill: {', '.join(late)}" if late else "Stopped")
        return 0

    def _on_signal(self, *_: object) -> None:
        self._signals += 1


def say(line: str) -> None:
    """One line on the console; a console that went away does not matter."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
