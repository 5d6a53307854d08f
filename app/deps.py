"""What a route may ask for, as Annotated types, so that a handler reads aloud."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from sqlalchemy.orm import Session

from app.auth.guard import Principal, require
from app.db import MAX_CONNECTIONS, commit
from app.errors import Unavailable
from app.pagination import PageDep
from app.platform import Platform
from app.settings import Settings
from app.storage import Store
from app.threads import finishing

__all__ = [
    "AdminKey",
    "PageDep",
    "PlatformDep",
    "Principal",
    "ReadKey",
    "ReadSessionDep",
    "SessionDep",
    "SettingsDep",
    "StoreDep",
    "WriteKey",
]


PLACES = MAX_CONNECTIONS - 8
_PATIENCE_SECONDS = 5
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Places(asyncio.Semaphore):
    """As many as connections, less a few for looking up keys; a session of a request holds one.

    Without them, requests that wait in a thread for a connection would keep those that hold one from getting a thread,
    and all would time out together.
    """

    def __init__(self) -> None:
        super().__init__(PLACES)

    async def take(self) -> None:
        """Wait, on the event loop, until a session may begin; raises `Unavailable` after five seconds (R19)."""
        try:
            if self.locked():
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self.acquire()
            else:
                await self.acquire()  # does not wait
        except TimeoutError:
            raise Unavailable("overloaded", "Too many requests at once.", retry_after=2) from None


async def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


PlatformDep = Annotated[Platform, Depends(_platform)]


async def _settings(platform: PlatformDep) -> Settings:
    return platform.settings


async def _store(platform: PlatformDep) -> Store:
    return platform.store


async def _session(request: Request, platform: PlatformDep) -> Session:
    # A Session connects on first use, in the route's own thread.
    session = await _begin(request, platform.sessions)
    request.state.session = session
    return session


async def _read_session(request: Request, platform: PlatformDep) -> Session:
    return await _begin(request, platform.read_sessions)


async def _begin(request: Request, make: Callable[[], Session]) -> Session:
    await request.app.state.places.take()
    session = make()
    request.scope.setdefault("sessions", []).append(session)
    return session


def ending_sessions(handle: Handler) -> Handler:
    """A route's handler after which its sessions end: a commit before the reply leaves, so that a failed commit
    answers an error; nothing is committed where the handler raises."""

    async def ended(request: Request) -> Response:
        try:
            response = await handle(request)
        except BaseException:
            await _end(request, good=False)
            raise
        await _end(request, good=True)
        return response

    return ended


async def _end(request: Request, good: bool) -> None:
    held: list[Session] = request.scope.pop("sessions", [])
    if not held:
        return
    writing: Session | None = getattr(request.state, "session", None)
    try:
        if writing is None or not writing.in_transaction():
            _close(held)  # what only read, or is committed, ends without asking the database server anything
        else:
            await finishing(_commit_and_close, held, writing if good else None)
    finally:
        for _ in held:
            request.app.state.places.release()


def _commit_and_close(held: list[Session], writing: Session | None) -> None:
    try:
        if writing is not None:
            commit(writing)
    finally:
        _close(held)


def _close(held: list[Session]) -> None:
    for session in held:
        session.close()


SettingsDep = Annotated[Settings, Depends(_settings)]
StoreDep = Annotated[Store, Depends(_store)]
SessionDep = Annotated[Session, Depends(_session)]
ReadSessionDep = Annotated[Session, Depends(_read_session)]
ReadKey = Annotated[Principal, Depends(require("read"))]
WriteKey = Annotated[Principal, Depends(require("write"))]
AdminKey = Annotated[Principal, Depends(require("admin"))]
