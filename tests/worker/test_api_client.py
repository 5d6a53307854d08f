"""HTTP that fails: who tries again, for how long, and from where."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.worker.door import TOKEN, StandIn
from tests.worker.harness import settings
from worker.api_client import ApiClient, Call, LeaseLost, Patience, Refused, Unreachable
from worker.settings import WorkerSettings
from worker.ticket import RemoteFile

WHO = {"name": "w", "host": "h", "pid": 1, "boot_id": ""}


class Script(BaseHTTPRequestHandler):
    """Answers each request with the next of `answers`: (status, headers, body, bytes to send before hanging up)."""

    answers: list[tuple[int, dict[str, str], bytes, int | None]]
    ranges: list[str | None]

    def do_GET(self) -> None:
        self.ranges.append(self.headers.get("Range"))
        status, headers, body, cut = self.answers.pop(0)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[type[Script], str]]:
    handler = type("Scripted", (Script,), {"answers": [], "ranges": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def client_of(url: str) -> ApiClient:
    return ApiClient(WorkerSettings(api_url=url, worker_token=TOKEN))


def get(url: str, seconds: float = 5.0) -> int:
    return client_of(url).send(Call("GET", "/x", "t"), Patience(seconds)).status_code


def test_a_503_is_tried_again_after_the_time_it_names(scripted: tuple[type[Script], str]) -> None:
    handler, url = scripted
    handler.answers = [(503, {"Retry-After": "1"}, b"", None), (200, {}, b"", None)]
    began = time.monotonic()
    assert get(url) == 200
    assert time.monotonic() - began >= 1


def test_a_connection_cut_in_the_middle_is_tried_again(scripted: tuple[type[Script], str]) -> None:
    handler, url = scripted
    handler.answers = [(200, {"Content-Length": "100"}, b"half", None), (429, {}, b"", None), (200, {}, b"ok", None)]
    assert get(url) == 200


def test_patience_ends() -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match="ConnectError"):
        get("http://127.0.0.1:9", seconds=0.5)
    assert time.monotonic() - began < 10


def test_an_abort_ends_the_waiting_at_once() -> None:
    abort = threading.Event()
    threading.Timer(0.3, abort.set).start()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        client_of("http://127.0.0.1:9").send(Call("GET", "/x", "t"), Patience(60, abort))
    assert time.monotonic() - began < 20


def test_a_refusal_is_not_tried_again_and_keeps_its_code(scripted: tuple[type[Script], str]) -> None:
    handler, url = scripted
    body = b'{"error": {"message": "no such file", "type": "x", "param": null, "code": "not_found"}}'
    handler.answers = [(404, {}, body, None)]
    with pytest.raises(Refused) as refusal:
        get(url)
    assert (refusal.value.status, refusal.value.code) == (404, "not_found")


def test_an_error_page_of_a_proxy_is_a_refusal_too(scripted: tuple[type[Script], str]) -> None:
    handler, url = scripted
    handler.answers = [(403, {}, b"<html>no</html>", None)]
    with pytest.raises(Refused, match="403"):
        get(url)


def test_a_broken_download_goes_on_where_it_stopped(scripted: tuple[type[Script], str], tmp_path: Path) -> None:
    handler, url = scripted
    content = bytes(range(256)) * 40
    handler.answers = [
        (200, {}, content, 4000),
        (503, {}, b"", None),
        (206, {}, content[4000:], 1000),
        (206, {}, content[5000:], None),
    ]
    target = tmp_path / "file"
    client_of(url).download(Call("GET", "/x", "t"), target, len(content), Patience(10))
    assert target.read_bytes() == content
    assert handler.ranges == [None, "bytes=4000-", "bytes=4000-", "bytes=5000-"]


def test_a_download_that_stays_shorter_than_announced_is_refused(
    scripted: tuple[type[Script], str], tmp_path: Path
) -> None:
    handler, url = scripted
    short = (416, {}, b"", None)
    handler.answers = [(200, {}, b"abc", None), short, (200, {}, b"abc", None), short, (200, {}, b"abc", None), short]
    with pytest.raises(Refused, match="were announced"):
        client_of(url).download(Call("GET", "/x", "t"), tmp_path / "file", 10, Patience(10))


def test_a_download_longer_than_announced_is_refused(scripted: tuple[type[Script], str], tmp_path: Path) -> None:
    handler, url = scripted
    handler.answers = [(200, {}, b"a" * 100, None)]
    with pytest.raises(Refused, match="100 bytes, 10 were announced"):
        client_of(url).download(Call("GET", "/x", "t"), tmp_path / "file", 10, Patience(10))


def test_an_empty_file_needs_no_request(tmp_path: Path) -> None:
    client_of("http://127.0.0.1:9").download(Call("GET", "/x", "t"), tmp_path / "file", 0, Patience(1))
    assert (tmp_path / "file").read_bytes() == b""


def test_nothing_to_claim_is_none_and_a_wrong_token_is_refused(door: StandIn, tmp_path: Path) -> None:
    client = ApiClient(settings(door, tmp_path))
    assert client.claim(None, WHO, Patience(1)) is None
    with pytest.raises(Refused, match="401"):
        ApiClient(settings(door, tmp_path, worker_token="not-the-token-of-this-api")).claim(None, WHO, Patience(1))


def test_a_dead_token_says_that_the_lease_is_lost(door: StandIn, tmp_path: Path) -> None:
    job = door.add()
    client = ApiClient(settings(door, tmp_path))
    ticket = client.claim(None, WHO, Patience(1))
    assert ticket is not None and "gwa_" not in repr(ticket)
    del door.jobs[job.id]
    with pytest.raises(LeaseLost):
        client.door(ticket, threading.Event()).release("drain", 1)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".", "a\\b", "a b"])
def test_a_path_that_could_leave_its_folder_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        RemoteFile(path=path, size=1, sha256="0" * 64, url="/x")
