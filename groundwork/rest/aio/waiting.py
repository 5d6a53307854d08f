"""What waiting and doing several things at once is with asyncio; `sync/waiting.py` is the same with threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Stream: TypeAlias = AsyncGenerator[T, None]


async def sleep(seconds: float) -> None:
    """Let others run."""
    await asyncio.sleep(seconds)


async def blocking(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of something that reads files or computes for a while, out of the event loop's way."""
    return await asyncio.to_thread(work, *args, **kwargs)


async def spread(items: Iterator[T], work: Callable[[T], Awaitable[R]], at_once: int) -> AsyncIterator[R]:
    """The results of `work` in the order of the items; `at_once` of them run, and no more items are held.

    The first that fails ends the others.
    """
    running: deque[asyncio.Future[R]] = deque()
    try:
        while True:
            item = await asyncio.to_thread(next, items, None)
            if item is None:
                break
            if len(running) == at_once:
                yield await running.popleft()
            running.append(asyncio.ensure_future(work(item)))
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
