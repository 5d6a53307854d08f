"""What only a real socket shows: framing, Host, size caps, start, memory, shutdown (B9, B11, R33, L10)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.settings import Settings
from tests.app.conftest import ROOT, LiveApi, environment, make_settings


def exchange(api: LiveApi, raw: bytes, seconds: float = 5) -> bytes:
    """Send these bytes, read until the server closes or falls silent."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=seconds) as connection:
        connection.sendall(raw)
        received = b""
        try:
            while block := connection.recv(65536):
                received += block
        except TimeoutError:
            pass
        return received


def request(*lines: str, body: str = "", method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} /v1/projects HTTP/1.1", *lines, "", body]).encode()


AMBIGUOUS = {
    "length and encoding": request("Host: a", "Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\nGET /"),
    "two lengths": request("Host: a", "Content-Length: 5", "Content-Length: 6", body="{}   "),
    "folded header": request("Host: a", "X-A: b", " c", method="GET"),
    "space before colon": request("Host : a", method="GET"),
    "bad length": request("Host: a", "Content-Length: -5"),
    "bare line feeds": b"GET /v1/projects HTTP/1.1\nHost: a\n\n",
    "one bare line feed": b"GET /v1/projects HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
    "bad chunk": request("Host: a", "Content-Type: application/json", "Transfer-Encoding: chunked", body="zz\r\n"),
}


@pytest.fixture(scope="module")
def live(shared_live_api: LiveApi) -> LiveApi:
    return shared_live_api


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_ambiguous_framing_gets_400_and_the_connection_is_closed(live: LiveApi, raw: bytes) -> None:
    began = time.monotonic()
    answer = exchange(live, raw)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1") == 1 and time.monotonic() - began < 4


@pytest.mark.parametrize("hosts", [[], ["Host: a", "Host: b"], ["Host: a b"], ["Host: a/b"], ["Host: "]])
def test_anything_but_one_valid_host_gets_400_and_the_connection_is_closed(live: LiveApi, hosts: list[str]) -> None:
    answer = exchange(live, request(*hosts, method="GET"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"connection: close" in head.lower()
    assert json.loads(body)["error"]["code"] == "invalid_host"


def test_a_declared_body_over_the_cap_is_refused_before_it_is_sent(live: LiveApi) -> None:
    lines = ("Host: a", f"Authorization: Bearer {live.key}", "Content-Type: application/json")
    answer = exchange(live, request(*lines, "Content-Length: 99999999"))
    assert b" 413 " in answer.split(b"\r\n")[0] and b"body_too_large" in answer


def test_an_endless_body_is_cut_off_at_the_cap(live: LiveApi) -> None:
    lines = ("Host: a", f"Authorization: Bearer {live.key}", "Content-Type: application/json")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=5) as connection:
        connection.sendall(request(*lines, "Transfer-Encoding: chunked"))
        sent = 0
        try:
            while sent < 200 << 20:
                connection.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
    assert sent < 50 << 20
    assert live.client.get("/healthz").status_code == 200


def test_it_is_ready_quickly_and_small_when_idle(live: LiveApi) -> None:
    status = Path(f"/proc/{live.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
    assert resident < 150, f"{resident:.0f} MB"


def test_the_application_imports_no_torch() -> None:
    code = "import app.main, sys; assert 'torch' not in sys.modules and 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=_bare())


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GROUNDWORK_")}


def start(variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**_bare(), "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "app.main"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


WRONG = {
    "no secrets": ({}, "GROUNDWORK_SECRET_KEY"),
    "weak secret": ({"GROUNDWORK_SECRET_KEY": "short"}, "GROUNDWORK_SECRET_KEY"),
    "bad port": ({"GROUNDWORK_PORT": "99999"}, "GROUNDWORK_PORT"),
    "bad database": ({"GROUNDWORK_DATABASE_URL": "nonsense"}, "URL"),
    "bad store": ({"GROUNDWORK_STORE_URL": "ftp://a/b"}, "GROUNDWORK_STORE_URL"),
    "unwritable folder": ({"GROUNDWORK_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere"),
}


@pytest.mark.parametrize(("change", "named"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_environment_is_one_clear_line(
    settings: Settings, tmp_path: Path, change: dict[str, str], named: str
) -> None:
    given = {name: value for name, value in environment(settings).items() if name.startswith("GROUNDWORK_")}
    done = start(given | change if change else {}, tmp_path)
    assert done.returncode == 1 and named in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_one_clear_line(live: LiveApi, settings: Settings, tmp_path: Path) -> None:
    given = {name: value for name, value in environment(settings).items() if name.startswith("GROUNDWORK_")}
    done = start(given | {"GROUNDWORK_PORT": str(live.port)}, tmp_path)
    assert done.returncode == 1 and f"127.0.0.1:{live.port}" in done.stderr and "Traceback" not in done.stderr


def test_a_database_without_a_schema_is_one_clear_line(tmp_path: Path) -> None:
    given = environment(make_settings("", tmp_path))
    done = start({name: value for name, value in given.items() if name.startswith("GROUNDWORK_")}, tmp_path)
    assert done.returncode == 1 and "groundwork migrate" in done.stderr and "Traceback" not in done.stderr


def test_a_kept_reply_outlives_a_killed_process(live_api: LiveApi) -> None:
    from tests.app.conftest import start_server

    headers = {"Idempotency-Key": "once"}
    first = live_api.client.post("/v1/projects", json={"name": "a"}, headers=headers).json()
    live_api.process.kill()
    live_api.process.wait()
    process, url = start_server(live_api.settings, live_api.log.with_name("second.log"))
    try:
        again = live_api.client.post(f"{url}/v1/projects", json={"name": "a"}, headers=headers).json()
        assert again["id"] == first["id"] and again["api_key"]["key"] is None
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
