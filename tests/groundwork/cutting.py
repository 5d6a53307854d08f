"""A TCP proxy that cuts connections at a byte that the test says, and a server that answers by a script."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass
class Cut:
    """What becomes of one connection: after so many bytes this way it is closed, or from then on nothing passes."""

    way: Literal["up", "down"]
    after: int
    hold: bool = False


class Cutter:
    """Listens on a free port; the next connections get the plans in `plans`, those after them pass whole."""

    def __init__(self, port: int, *plans: Cut) -> None:
        self.target, self.plans = port, deque(plans)
        self.passed = {"up": 0, "down": 0}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                plan = self.plans.popleft() if self.plans else None
                for way, source, sink in (("up", client, server), ("down", server, client)):
                    mine = plan if plan and plan.way == way else None
                    threading.Thread(target=self._pump, args=(way, source, sink, mine), daemon=True).start()

    def _pump(self, way: str, source: socket.socket, sink: socket.socket, cut: Cut | None) -> None:
        left = cut.after if cut else -1
        with suppress(OSError):
            while data := source.recv(16_384):
                part = data if cut is None else data[:left]
                sink.sendall(part)
                self.passed[way] += len(part)
                left -= len(part)
                if cut is not None and left <= 0:
                    break
            if cut is not None and cut.hold and left <= 0:
                threading.Event().wait(60)
        for each in (source, sink) if cut is not None and left <= 0 else (sink,):
            _end(each, cut is not None)


def _end(one: socket.socket, cut: bool) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR if cut else socket.SHUT_WR)  # wakes the other thread that reads it


@dataclass
class Asked:
    """A request that the scripted server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What it answers. `broken`: the connection ends after the body, whatever length the headers told."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    broken: bool = False


Script = Callable[[Asked], Answer]


class Scripted:
    """A server on a free port that answers its requests by one list, the last answer again and again."""

    def __init__(self, *answers: Answer | Script) -> None:
        self.asked: list[Asked] = []
        left = deque(answers)
        lock = threading.Lock()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                with lock:
                    scripted.asked.append(asked)
                    step = left.popleft() if len(left) > 1 else left[0]
                made = step(asked) if callable(step) else step
                self.send_response(made.status)
                told = {"Content-Type": "application/json", "Content-Length": str(len(made.body)), **made.headers}
                for name, value in told.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(made.body)
                self.close_connection = made.broken

            do_GET = do_POST = do_DELETE = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
