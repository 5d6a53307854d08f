"""What comes before a body has an end, in bytes and in seconds; read from a real socket (R19, R31, F39)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from app import wire
from tests.app.conftest import LiveApi

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the length of the body; `/slow` after a while."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    if scope["path"] == "/slow":
        time.sleep(0.6)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(str(size)))]})
    await send({"type": "http.response.body", "body": str(size).encode()})


@contextmanager
def serving() -> Iterator[int]:
    config = uvicorn.Config(app, http=wire.BoundedProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


def talk(port: int, *pieces: bytes, seconds: float = 5) -> bytes:
    """Send the pieces as long as they are taken, and read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        received = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while block := connection.recv(65536):
                received += block
        except (TimeoutError, ConnectionError):
            pass
        return received


def code_of(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: req_" in head and b"connection: close" in head
    code: str = json.loads(body)["error"]["code"]
    return code


ENDLESS = {
    "header": GET + b"X: ",
    "path": b"GET /",
    "trailer": CHUNKED + b"1\r\nx\r\n0\r\nX: ",
    "chunk extension": CHUNKED + b"5;x=",
}


@pytest.mark.parametrize("start", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_never_ends_is_cut_off(port: int, start: bytes) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(start)
        with pytest.raises(ConnectionError):
            while sent < 64 << 20:
                sent += connection.send(b"y" * 65536)
    assert sent < 32 << 20  # what the kernel had buffered by then, and no more


def test_a_head_over_the_cap_gets_431(port: int) -> None:
    for many in (b"X: y\r\n" * 20_000, b"X: " + b"y" * (wire.MAX_HEAD + 1) + b"\r\n"):
        answer = talk(port, GET + many + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ") and code_of(answer) == "headers_too_large"


def test_a_head_under_the_cap_and_a_long_body_in_any_pieces_pass(port: int) -> None:
    assert b" 200 " in talk(port, GET + b"Connection: close\r\nX: " + b"y" * 60_000 + b"\r\n\r\n")[:20]
    tiny = b"1\r\nx\r\n" * 50_000
    answer = talk(port, CHUNKED.replace(b"Host: a", b"Host: a\r\nConnection: close"), tiny, tiny, b"0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n100000")
    plain = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n"
    assert talk(port, plain, *[b"z" * 500_000] * 6).endswith(b"\r\n\r\n3000000")


def test_many_requests_on_one_connection_each_have_the_whole_cap(port: int) -> None:
    one = GET + b"X: " + b"y" * 40_000 + b"\r\n\r\n"
    assert talk(port, *[one] * 5, one.replace(b"X:", b"Connection: close\r\nX:")).count(b"HTTP/1.1 200") == 6


def test_what_cannot_be_read_gets_the_envelope(port: int) -> None:
    answer = talk(port, b"\x16\x03\x01\x02\x00 not HTTP\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and code_of(answer) == "malformed_request"


@pytest.mark.parametrize("start", [b"", b"GET / HT", GET])
def test_a_head_that_does_not_come_in_time_gets_408(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.3)
    with serving() as port:
        answer = talk(port, start)
    assert answer.startswith(b"HTTP/1.1 408 ") and code_of(answer) == "request_timeout"


def test_a_slow_body_and_a_slow_reply_are_not_a_late_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.3)
    with serving() as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            time.sleep(0.15)
            connection.sendall(b"x")
        assert b" 200 " in connection.recv(100)
        connection.sendall(GET)
        time.sleep(0.1)
        connection.sendall(b"\r\n")
        assert b" 200 " in connection.recv(1000)


def test_the_api_is_served_this_way(shared_live_api: LiveApi) -> None:
    answer = talk(shared_live_api.port, GET + b"X: y\r\n" * 20_000 + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ") and code_of(answer) == "headers_too_large"
