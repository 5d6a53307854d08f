"""The data folder of `groundwork serve`: who may use it, its secrets, what it tells scripts."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any, TextIO

SOCKET_PATH_BYTES = 100  # the kernel's limit is 108


class Refusal(Exception):
    """It cannot start; the message is the one line the user reads."""


class DataFolder:
    """A folder that one `groundwork serve` holds at a time.

    Args:
        path: made where it is missing.

    Raises:
        Refusal: it cannot be written, or another serve holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        try:
            for folder in (self.path, self.logs, self.path / "broker"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = self._take_lock()
        except OSError as error:
            raise Refusal(f"the data folder {self.path} cannot be written: {error.strerror or error}") from error

    @property
    def logs(self) -> Path:
        """One file for each role."""
        return self.path / "logs"

    def secrets(self) -> dict[str, str]:
        """`worker_token` and `secret_key`: made on the first start, kept in a file only its owner can read."""
        path = self.path / "secrets.json"
        if path.exists():
            kept = read_secrets(path)
        else:
            kept = {name: secrets.token_urlsafe(32) for name in ("worker_token", "secret_key")}
            self._write(path, kept)
        if any(len(kept.get(name, "")) < 20 for name in ("worker_token", "secret_key")):
            raise Refusal(f"{path} must hold worker_token and secret_key, each of at least 20 characters")
        return kept

    def tell(self, state: dict[str, Any]) -> None:
        """Write serve.json: url and pids, for scripts."""
        self._write(self.path / "serve.json", state)

    def forget(self) -> None:
        """Remove serve.json: nothing runs here any more."""
        (self.path / "serve.json").unlink(missing_ok=True)

    def broker_socket(self) -> Path:
        """In the folder itself, or in a short place of our own where that path would be too long for a socket."""
        inside = self.path / "broker" / "broker.sock"
        if len(os.fsencode(inside)) < SOCKET_PATH_BYTES:
            return inside
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        short = Path(tempfile.gettempdir()) / f"gw-{os.getuid()}-{name}"
        short.mkdir(mode=0o700, exist_ok=True)
        owner = short.lstat()
        if owner.st_uid != os.getuid() or short.is_symlink() or owner.st_mode & 0o077:
            raise Refusal(f"{short} belongs to someone else; choose a data folder with a shorter path")
        return short / "broker.sock"

    def _take_lock(self) -> TextIO:
        lock = (self.path / "serve.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise Refusal(f"another groundwork serve (pid {holder}) already uses {self.path}") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    @staticmethod
    def _write(path: Path, content: dict[str, Any]) -> None:
        part = path.with_name(f"{path.name}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(content, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)


def read_secrets(path: Path) -> dict[str, str]:
    """What a folder's secrets.json holds. Raises Refusal."""
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise Refusal(f"{path} cannot be read; without it every API key is void") from error


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that outlives the process behind it: while the API restarts, connections wait.

    Raises:
        Refusal: the port is taken or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        hint = "; choose another with --port (0 = any free one)" if getattr(error, "errno", 0) == 98 else ""
        why = getattr(error, "strerror", None) or error
        raise Refusal(f"cannot listen on {host} port {port}: {why}{hint}") from error
    return listener


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
