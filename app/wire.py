"""The HTTP protocol below the application: what comes before a body is bounded in size and time (R19, R31, F39).

The server's own protocol keeps a request's head in memory until it is complete, however long it is and however slowly
it comes. Here both have an end, and what cannot be read at all is answered in the one envelope, too.
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.errors import ApiError
from app.ids import new_id

MAX_HEAD = 64 << 10  # bytes of request line and headers; of trailers and chunk extensions, too
HEAD_SECONDS = 30.0  # from a request's first byte (or the connection) to the end of its headers


class BoundedProtocol(HttpToolsProtocol):
    """httptools' protocol, for which nothing is endless but a body (and those are the routes' to bound)."""

    _timer: asyncio.TimerHandle | None = None
    _between = True  # no message has begun, or the last one is complete
    _moved = False  # whether the parser got anywhere with what it was fed
    _unread = 0  # bytes fed since it last did
    _fields = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection that says nothing is closed after a while."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the connection, and of the wait for it."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless it holds too much that leads nowhere."""
        if self._between and self._timer is None:
            self._expect_head()
        self._moved = False
        super().data_received(data)
        self._unread = 0 if self._moved else self._unread + len(data)
        if self._unread > MAX_HEAD and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A new head."""
        super().on_message_begin()
        self._between, self._fields = False, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One more header, or trailer; raising makes the parser stop."""
        self._fields += len(name) + len(value) + len(": \r\n")
        if self._fields > MAX_HEAD:
            raise ValueError("the headers are too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._moved = True
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._between = self._moved = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, and close."""
        if self._fields > MAX_HEAD:
            self._refuse_head()
        else:
            self._refuse(400, "malformed_request", msg)

    def _expect_head(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._expect_head()  # an earlier request of the connection is still being answered
        elif not self.transport.is_closing():
            self._refuse(408, "request_timeout", f"No complete request arrived within {HEAD_SECONDS:g} seconds.")

    def _refuse_head(self) -> None:
        self._refuse(431, "headers_too_large", f"The headers are larger than the {MAX_HEAD} bytes allowed.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps(ApiError(code, message).body()).encode()
        lines = (
            "content-type: application/json", f"content-length: {len(body)}", f"x-request-id: {new_id('req')}",
            "connection: close", "", "",
        )  # fmt: skip
        self.transport.write(STATUS_LINE[status] + "\r\n".join(lines).encode() + body)
        self.transport.close()
