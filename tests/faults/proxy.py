"""A TCP proxy that can be told to lose, delay, cut and swallow: what a network between worker and API may do.

    with Proxy("127.0.0.1", port) as proxy: proxy.mode = "swallow_answers"

Modes: `pass`; `refuse` (new connections are reset, old ones cut); `swallow` (half-open: taken, and nothing goes either
way); `swallow_requests` and `swallow_answers` (one way only); `delay` (each piece waits); `cut_answers` (the answer is
reset in the middle); `lossy` (a share of all connections is reset at a random byte).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from typing import Literal

Mode = Literal["pass", "refuse", "swallow", "swallow_requests", "swallow_answers", "delay", "cut_answers", "lossy"]


class Proxy:
    """Listens on a free port of the loopback, in a thread of its own.

    Args:
        port: where the API listens. `target`, the same, may be changed: connections made from then on go there.
        seed: of what is lost.
    """

    def __init__(self, port: int, seed: int = 1) -> None:
        self.target, self._draw = port, random.Random(seed)
        self._mode: Mode = "pass"
        self.delay, self.loss = 0.3, 0.3
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; what is open is cut."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """What the worker is told to be the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def mode(self) -> Mode:
        """What it does with every piece from now on."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        if mode in ("refuse", "pass"):  # what was half-open stays dead, as after a real partition
            self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "refuse":
            return _reset(writer)
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return _reset(writer)
        both = (writer, to_writer)
        self._open.update(both)
        doomed = self._draw.randrange(4000) if self._mode == "lossy" and self._draw.random() < self.loss else None
        try:
            await asyncio.gather(
                self._pump(reader, to_writer, False, doomed), self._pump(to_reader, writer, True, None)
            )  # fmt: skip
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for each in both:
                self._open.discard(each)
                _reset(each)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bool, doomed: int | None
    ) -> None:
        while data := await reader.read(65_536):
            if self._mode == "swallow" or self._mode == ("swallow_answers" if answer else "swallow_requests"):
                continue
            if self._mode == "delay":
                await asyncio.sleep(self.delay)
            if self._mode == "cut_answers" and answer:
                data, doomed = data[: len(data) // 2], 0
            if doomed is not None and len(data) > doomed:
                writer.write(data[:doomed])
                await writer.drain()
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
            if doomed is not None:
                doomed -= len(data)
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN where the system allows it."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
