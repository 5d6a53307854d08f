"""What the parts of the client have in common: pages, and files on their way down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from groundwork.errors import ConnectionFailed
from groundwork.rest.aio.waiting import blocking, sleep
from groundwork.rest.saving import Partial
from groundwork.rest.values import Json

if TYPE_CHECKING:
    from groundwork.rest.aio.client import AsyncClient

T = TypeVar("T")
SLOW = 300.0
"""Seconds for an answer of a model: the first one loads its weights."""
Told = Callable[[int, int], None]
"""Called with the bytes so far and the bytes in all."""


class AsyncResource:
    """A part of the client; `gw` is the whole. Lists ask for `page` items at a time."""

    page: int = 100

    def __init__(self, gw: AsyncClient) -> None:
        self.gw = gw

    async def pages(
        self, path: str, make: Callable[[Json], T], limit: int | None = None, **params: Any
    ) -> AsyncIterator[T]:
        """Up to `limit` items of a list, or all of them, page by page.

        A page is asked for before the last item of the one before is handed out: whoever deletes what they are given
        does not delete the place to go on from.
        """
        left, asked = limit, {name: value for name, value in params.items() if value is not None}
        page = await self._page(path, left, asked)
        while True:
            rows = page["data"]
            left = None if left is None else left - len(rows)
            more = bool(rows) and bool(page.get("has_more")) and left != 0
            for row in rows[:-1]:
                yield make(row)
            if more:
                page = await self._page(path, left, {**asked, "after": page["last_id"]})
            if rows:
                yield make(rows[-1])
            if not more:
                return

    async def _page(self, path: str, left: int | None, params: Json) -> Json:
        if left is not None and left < 1:
            return {"data": []}
        page: Json = await self.gw.request("GET", path, params={"limit": min(left or self.page, self.page), **params})
        return page

    async def save(
        self, path: str, target: Path, *, params: Json | None = None, otherwise: str = "", progress: Told | None = None
    ) -> Path:
        """Stream a file of the server to `target`, or below it under its own name where that is a folder; the path.

        It is written beside the target and renamed once its sha256 is the server's. A connection that breaks off is
        taken up again where it broke.

        Raises:
            Damaged: its digest is another.
            APIStatusError, ConnectionFailed: as `AsyncClient.request`.
        """
        partial, tries = Partial(target, otherwise, progress), 0
        try:
            while not partial.complete:
                before = partial.have
                broken = await self._pull(path, partial, params or {})
                tries = 1 if partial.have > before else tries + 1
                pause = 0.0 if partial.complete else self.gw.transport.retries.wait(tries)
                if pause is None:
                    raise ConnectionFailed(f"the download of {path} broke off at byte {partial.have}: {broken!r}")
                await sleep(pause)
            return await blocking(partial.finish)
        finally:
            partial.discard()

    async def _pull(self, path: str, partial: Partial, params: Json) -> httpx2.TransportError | None:
        """One request's worth of bytes; what broke it, if anything did."""
        try:
            async with self.gw.transport.open(path, params=params, headers=partial.headers()) as answer:
                partial.begin(answer)
                async for chunk in answer.aiter_bytes():
                    partial.write(chunk)
                partial.end()
        except httpx2.TransportError as error:
            return error
        return None
