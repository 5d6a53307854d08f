"""The inference role as a real process, for the tests of it and of the API in front of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from tests.services import die_with_parent, wait_for

TOKEN = "worker-token-of-the-tests"


def free_url() -> str:
    """An address that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def start_role(api_url: str, url: str, folder: Path, **settings: Any) -> subprocess.Popen[bytes]:
    """The process, once it answers at `url`; it keeps its files in `folder`."""
    named = {f"GROUNDWORK_{name.upper()}": str(value) for name, value in settings.items()}
    own = {
        "GROUNDWORK_API_URL": api_url,
        "GROUNDWORK_INFERENCE_URL": url,
        "GROUNDWORK_WORKER_TOKEN": TOKEN,
        "GROUNDWORK_DATA_DIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "inference.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.inference"],
            env={**os.environ, **own, **named},
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
        )
    wait_for(lambda: _answers(url), 120)
    return process


def stop_role(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and wait."""
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=40)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").status_code == 200
    except httpx2.HTTPError:
        return False
