"""Small requests of several callers to one model go to the inference role together.

While nothing is under way a request leaves at once. While two posts are, those that come wait, and leave together when
one is back: the busier it gets, the fewer posts there are for each request, and the role reads and computes more of
them as one. Each caller has its own answer, its own error and its own trace. One that hangs up is computed for all the
same: to listen for it would cost about as much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from app.errors import Unavailable

LANES = 2
"""Posts under way for each model: one is computed while the answers to the other are given."""
MOST_TOGETHER = 32
MOST_WAITING, MOST_WAITING_IN_ALL = 512, 2048
"""Requests of a process that wait for a lane of one model, and of all; more are told to try again."""
Reply = dict[str, Any]
Post = Callable[[list[bytes]], Awaitable[list[Reply]]]


@dataclass
class _Lanes:
    """Of one model."""

    under_way: int = 0
    waiting: deque[tuple[bytes, asyncio.Future[Reply]]] = field(default_factory=deque)


class Together:
    """Collects requests on one event loop. `post` sends some and gives a reply for each, in their order."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._lanes: dict[str, _Lanes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0

    async def ask(self, model: str, order: bytes) -> Reply:
        """The reply to one request about `model`.

        Raises:
            Unavailable: 503 `inference_busy`, too many wait already; and whatever `post` raises.
        """
        known = self._lanes.get(model)
        if known is not None and len(known.waiting) >= MOST_WAITING:
            raise Unavailable("inference_busy", "Too many requests wait for this model; try again.", 1)
        if self._waiting >= MOST_WAITING_IN_ALL:
            raise Unavailable("inference_busy", "Too many requests wait for the models; try again.", 1)
        lanes = self._lanes.setdefault(model, _Lanes())
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        lanes.waiting.append((order, future))
        self._waiting += 1
        if lanes.under_way < LANES:
            lanes.under_way += 1
            task = asyncio.create_task(self._run(model, lanes))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run(self, model: str, lanes: _Lanes) -> None:
        """A lane: goes on as long as somebody waits."""
        while lanes.waiting:
            taken = [lanes.waiting.popleft() for _ in range(min(MOST_TOGETHER, len(lanes.waiting)))]
            self._waiting -= len(taken)
            sent = [(order, future) for order, future in taken if not future.done()]
            if sent:
                await self._exchange(sent)
        lanes.under_way -= 1
        if not lanes.under_way:
            self._lanes.pop(model, None)

    async def _exchange(self, sent: list[tuple[bytes, asyncio.Future[Reply]]]) -> None:
        try:
            replies = await self._post([order for order, _ in sent])
        except Exception as error:
            for _, future in sent:
                _settle(future, error)
            return
        for (_, future), reply in zip(sent, replies, strict=True):
            _settle(future, reply)


def _settle(future: asyncio.Future[Reply], with_: Reply | Exception) -> None:
    if future.done():  # its caller went away
        return
    if isinstance(with_, Exception):
        future.set_exception(with_)
    else:
        future.set_result(with_)
