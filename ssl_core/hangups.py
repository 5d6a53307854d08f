"""Work for somebody at the other end of a connection, who may hang up. Imports without torch or a web framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gone(Exception):
    """The caller has hung up; nobody will read an answer."""


async def while_listening(receive: Receive, work: Awaitable[T]) -> T:
    """What `work` comes to. It is cancelled when the caller hangs up, or when whoever awaits this is.

    Args:
        receive: an ASGI request's, whose body has been read to its end.
        work: what to do.

    Raises:
        Gone: the caller has hung up; and whatever `work` raises.
    """
    working = asyncio.ensure_future(work)
    listening = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        listening.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
