"""Blocking calls of a request, in threads: a hop costs half of what the framework's own costs.

Two kinds of threads: those in which requests begin, and a few in which they end, so that requests that wait for a
thread to begin in never keep a transaction that is done from being committed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
THREADS, FINISHERS = 40, 20
_BACKGROUND_NICENESS = 10


def _yield_to_others() -> None:
    # Linux knows the niceness of each thread; where it does not, the bulk work simply shares fairly.
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, _BACKGROUND_NICENESS)


_beginners = ThreadPoolExecutor(THREADS, "request")
_finishers = ThreadPoolExecutor(FINISHERS, "finish")
_bulk = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), "bulk", initializer=_yield_to_others)


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call` in a thread of the requests, with this task's context variables."""
    return await _run(_beginners, partial(call, *args, **kwargs))


async def finishing(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call`, which ends something that others wait for."""
    return await _run(_finishers, partial(call, *args, **kwargs))


async def in_bulk(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call`, which computes for long: checksums of uploads. At a low priority, and no more at once than cores."""
    return await _run(_bulk, partial(call, *args, **kwargs))


async def _run(pool: Executor, call: Callable[[], T]) -> T:
    future: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(pool, copy_context().run, call)
    try:
        found: T = await asyncio.shield(future)
    except asyncio.CancelledError:
        # The thread cannot be stopped, and what it uses (a session) must not be taken from under it.
        await asyncio.wait([future])
        raise
    return found
