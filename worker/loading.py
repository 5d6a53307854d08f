"""Things that take long to load: loaded once however many ask for them, in threads of their own.

Whoever waits for a load holds no thread, so that a slow one holds up nobody who asks for something else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
_THREADS = 8


class Loads(Generic[T]):
    """What is loaded or being loaded, by key; the least recently asked for first.

    Attributes:
        lock: held for every look at `slots` and every change of it.
    """

    def __init__(self, name: str) -> None:
        self.lock = threading.RLock()
        self.slots: OrderedDict[str, Future[T]] = OrderedDict()
        self._threads = ThreadPoolExecutor(_THREADS, name)

    def ask(self, key: str, load: Callable[[], T]) -> Future[T]:
        """What `load` makes, or made for an earlier caller. An error reaches all who wait, and is not remembered.

        Never cancel it: it is everybody's (`outcome`).
        """
        with self.lock:
            known = self.slots.get(key)
            if known is not None:
                self.slots.move_to_end(key)
                return known
            slot = self.slots[key] = Future()
        self._threads.submit(self._run, key, slot, load)
        return slot

    def done(self) -> dict[str, T]:
        """All that is loaded, the least recently asked for first."""
        with self.lock:
            return {key: slot.result() for key, slot in self.slots.items() if slot.done()}

    def close(self) -> None:
        """Load nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, key: str, slot: Future[T], load: Callable[[], T]) -> None:
        try:
            found = load()
        except BaseException as error:
            with self.lock:
                self.slots.pop(key, None)
            slot.set_exception(error)
            return
        slot.set_result(found)


async def outcome(slot: Future[T]) -> T:
    """What a load comes to. A caller that goes away takes it from nobody else."""
    if slot.done():
        return slot.result()
    return await asyncio.shield(asyncio.wrap_future(slot))
