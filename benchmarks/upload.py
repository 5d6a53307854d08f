"""How much memory a large upload costs the API, and how long others wait meanwhile.

    python -m benchmarks.upload                  # 2 GB into a server of its own, in a temporary folder
    python -m benchmarks.upload --megabytes 200 --streams 4

Prints one JSON object. RSS is `VmRSS` of the API process, sampled every 20 ms; a poll is `GET /v1/datasets/{id}`, one
every 20 ms over one kept connection. Goal (reliability L3): growth below 50 MB, polls below 200 ms at p99.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = secrets.token_bytes(1 << 20)
BOUNDARY = "groundwork-benchmark"
PAUSE = 0.02


@dataclass
class Server:
    """An API process of this benchmark's own."""

    process: subprocess.Popen[bytes]
    port: int
    key: str


@dataclass
class Watch:
    """What was seen while the uploads ran."""

    rss: list[int] = field(default_factory=list)
    polls: list[float] = field(default_factory=list)


def start(folder: Path) -> Server:
    """A fresh API over SQLite and a folder store, with one key."""
    environment = {
        **os.environ,
        "GROUNDWORK_DATA_DIR": str(folder), "GROUNDWORK_PORT": "0", "GROUNDWORK_LOG_LEVEL": "INFO",
        "GROUNDWORK_WORKER_TOKEN": secrets.token_hex(20), "GROUNDWORK_SECRET_KEY": secrets.token_hex(20),
    }  # fmt: skip
    key = subprocess.run(
        [sys.executable, "-m", "benchmarks.upload", "--make-key"], env=environment, capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    log = folder / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "app.main"], env=environment, stdout=output, stderr=output)
    for _ in range(600):
        found = re.search(r'"url": "http://[^"]*:(\d+)"', log.read_text())
        if found:
            return Server(process, int(found[1]), key)
        time.sleep(0.05)
    raise SystemExit(f"the API did not start:\n{log.read_text()}")


def make_key() -> str:
    """Every table, one project and its key, in the database that the environment names."""
    from app.auth.guard import Principal
    from app.auth.service import ALL_SCOPES, create_project
    from app.migrate import migrate
    from app.platform import Platform, session_scope
    from app.settings import get_settings

    migrate(get_settings())
    platform = Platform.open(get_settings())
    with session_scope(platform) as session:
        root = Principal("", "", frozenset(ALL_SCOPES), root=True)
        return create_project(session, platform.settings, root, "benchmark")[2]


def send(port: int, key: str, megabytes: int) -> None:
    """One multipart upload of so many MiB."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="big.txt"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(megabytes):
            yield BLOCK
        yield tail

    length = len(head) + megabytes * len(BLOCK) + len(tail)
    headers = {
        "Authorization": f"Bearer {key}", "Content-Length": str(length),
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/datasets", body(), headers)
    reply = connection.getresponse()
    if reply.status != 201:
        raise SystemExit(f"{reply.status}: {reply.read().decode()}")


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def poll(server: Server, path: str, watch: Watch, done: threading.Event) -> None:
    """Ask for one small object again and again."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    while not done.is_set():
        began = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {server.key}"})
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 200, reply.status
        watch.polls.append(time.perf_counter() - began)
        watch.rss.append(rss(server.process.pid))
        time.sleep(PAUSE)


def measure(server: Server, megabytes: int, streams: int) -> dict[str, Any]:
    """Upload and watch."""
    send(server.port, server.key, 1)
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/v1/datasets", headers={"Authorization": f"Bearer {server.key}"})
    path = f"/v1/datasets/{json.loads(connection.getresponse().read())['last_id']}"
    quiet, busy = Watch(), Watch()
    _during(server, path, quiet, lambda: time.sleep(2))
    senders = [multiprocessing.Process(target=send, args=(server.port, server.key, megabytes)) for _ in range(streams)]

    def upload() -> None:
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

    began = time.perf_counter()
    _during(server, path, busy, upload)
    seconds = time.perf_counter() - began
    if any(sender.exitcode for sender in senders):
        raise SystemExit("an upload failed")
    before = max(quiet.rss)
    return {
        "megabytes": megabytes, "streams": streams, "seconds": round(seconds, 1),
        "megabytes_per_second": round(megabytes * streams / seconds), "rss_before_mb": round(before / 2**20, 1),
        "rss_growth_mb": round((max(busy.rss) - before) / 2**20, 1), "polls": len(busy.polls),
        "poll_p50_ms": _percentile(busy.polls, 50), "poll_p99_ms": _percentile(busy.polls, 99),
        "poll_max_ms": _percentile(busy.polls, 100), "quiet_poll_p99_ms": _percentile(quiet.polls, 99),
    }  # fmt: skip


def _during(server: Server, path: str, watch: Watch, work: Any) -> None:
    done = threading.Event()
    poller = threading.Thread(target=poll, args=(server, path, watch, done))
    poller.start()
    work()
    done.set()
    poller.join()


def _percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000, 1)


def main() -> None:
    """See the top of the file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=int, default=2048)
    arguments.add_argument("--streams", type=int, default=1)
    arguments.add_argument("--make-key", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.make_key:
        print(make_key())
        return
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder))
        try:
            print(json.dumps(measure(server, given.megabytes, given.streams), indent=1))
        finally:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(20)


if __name__ == "__main__":
    main()
