"""Work for a caller who may hang up."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from ssl_core.hangups import Gone, while_listening


class Line:
    """A caller, and work that goes on until it is let go."""

    def __init__(self) -> None:
        self.hung_up, self.let_go = asyncio.Event(), asyncio.Event()
        self.begun = self.ended = False

    async def receive(self) -> MutableMapping[str, Any]:
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def work(self) -> int:
        self.begun = True
        try:
            await self.let_go.wait()
        finally:
            await asyncio.sleep(0)
            self.ended = True
        return 7


def test_who_stays_has_the_answer() -> None:
    async def scene() -> int:
        line = Line()
        line.let_go.set()
        return await while_listening(line.receive, line.work())

    assert asyncio.run(scene()) == 7


def test_who_hangs_up_ends_the_work() -> None:
    async def scene() -> Line:
        line = Line()
        asyncio.get_running_loop().call_later(0.01, line.hung_up.set)
        with pytest.raises(Gone):
            await while_listening(line.receive, line.work())
        return line

    line = asyncio.run(scene())
    assert line.begun and line.ended


def test_an_error_of_the_work_is_the_callers() -> None:
    async def fails() -> int:
        raise ValueError("no")

    async def scene() -> None:
        with pytest.raises(ValueError, match="no"):
            await while_listening(Line().receive, fails())

    asyncio.run(scene())


def test_who_is_cancelled_leaves_no_work_behind() -> None:
    async def scene() -> Line:
        line = Line()
        waiting = asyncio.create_task(while_listening(line.receive, line.work()))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return line

    assert asyncio.run(scene()).ended
