"""Start `groundwork serve` in a folder of its own and stop it again: what the demo and the examples stand on."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from groundwork.client import GroundworkError, JobFailed

START_SECONDS = 90


@contextmanager
def serving(folder: Path, settings: dict[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """(URL, API key) of a fresh server on a free port; drained on the way out. `settings`: extra environment.

    Raises:
        RuntimeError: it did not come up; the message carries its last lines.
    """
    log = folder / "serve.log"
    command = [
        sys.executable,
        "-m",
        "groundwork.cli",
        "serve",
        "--data-dir",
        str(folder / "data"),
        "--port",
        "0",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDWORK_")} | (settings or {})
    # Told to stop, a script leaves by its `finally` clauses, so that no server outlives it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            yield _wait_ready(process, log, folder / "data" / "serve.json")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """`--url` and `--key` of a server that runs already."""
    parser.add_argument("--url", help="of a server that runs already, instead of one of its own; needs --key")
    parser.add_argument("--key", help="for --url: an API key that may create datasets and jobs")


@contextmanager
def server_of(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """(URL, API key) of the server that `add_server_options` names, or of a fresh one in `folder`.

    Exits with a message where one of the two options stands alone, and with the server's own where it refuses a request
    or a job fails.
    """
    if bool(options.url) != bool(options.key):
        sys.exit("--url and --key belong together: give both, or neither for a server of its own")
    server = nullcontext((options.url, options.key)) if options.url else serving(folder)
    try:
        with server as found:
            yield found
    except (GroundworkError, JobFailed) as error:
        sys.exit(str(error))


def command(example: str) -> str:
    """How this process was called, less the server's address and key: what a result tells of how it was made."""
    told, words = [], iter(sys.argv[1:])
    for word in words:
        if word in ("--url", "--key"):
            next(words, None)
        elif not word.startswith(("--url=", "--key=")):
            told.append(word)
    return shlex.join(["python", "-m", f"examples.{example}", *told])


def _wait_ready(process: subprocess.Popen[bytes], log: Path, state: Path) -> tuple[str, str]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        printed = log.read_text(errors="replace")
        key = re.search(r"\bgw_[A-Za-z0-9_]+", printed)
        if key and "Ready" in printed and state.exists():
            return str(json.loads(state.read_text())["url"]), key.group()
        time.sleep(0.1)
    raise RuntimeError(f"groundwork serve did not become ready:\n{log.read_text(errors='replace')[-2000:]}")
