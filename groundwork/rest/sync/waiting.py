"""What waiting and doing several things at once is with threads, by hand; `aio/waiting.py` is the same with asyncio."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Stream: TypeAlias = Generator[T, None, None]


class Ended(Exception):
    """Raised in a thread of `spread` whose work nobody wants any longer."""


_mine = threading.local()


def sleep(seconds: float) -> None:
    """Stand still; a thread of `spread` that is no longer wanted ends here, instead of trying once more."""
    over: threading.Event | None = getattr(_mine, "over", None)
    if over is None:
        time.sleep(seconds)
    elif over.wait(seconds):
        raise Ended


def blocking(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of something that reads files or computes for a while."""
    return work(*args, **kwargs)


def spread(items: Iterator[T], work: Callable[[T], R], at_once: int) -> Iterator[R]:
    """The results of `work` in the order of the items; `at_once` of them run, and no more items are held.

    The first that fails ends the others.
    """
    running: deque[Future[R]] = deque()
    over = threading.Event()
    pool = ThreadPoolExecutor(at_once, initializer=lambda: setattr(_mine, "over", over))
    try:
        for item in items:
            if len(running) == at_once:
                yield running.popleft().result()
            running.append(pool.submit(work, item))
        while running:
            yield running.popleft().result()
    finally:
        over.set()
        pool.shutdown(wait=False, cancel_futures=True)
