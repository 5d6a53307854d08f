"""What a route may ask for, as Annotated types, so that a handler reads aloud."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from anyio import CapacityLimiter, Semaphore, move_on_after, to_thread
from anyio.lowlevel import RunVar
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.auth.guard import Principal, require
from app.db import MAX_CONNECTIONS, commit
from app.errors import Unavailable
from app.pagination import PageDep
from app.platform import Platform
from app.settings import Settings
from app.storage import Store

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


T = TypeVar("T")
PLACES = MAX_CONNECTIONS - 8
_FINISHERS = 20
_PATIENCE_SECONDS = 5
_finishers: RunVar[CapacityLimiter] = RunVar("finishers")
_places: RunVar[Semaphore] = RunVar("places")


async def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


PlatformDep = Annotated[Platform, Depends(_platform)]


async def _settings(platform: PlatformDep) -> Settings:
    return platform.settings


async def _store(platform: PlatformDep) -> Store:
    return platform.store


async def _session(request: Request, platform: PlatformDep) -> AsyncIterator[Session]:
    # A Session connects on first use, in the route's own thread; only its end does IO here.
    async with _place():
        session = platform.sessions()
        request.state.session = session
        try:
            yield session
            await _finish(commit, session)
        finally:
            await _finish(Session.close, session)


async def _read_session(platform: PlatformDep) -> AsyncIterator[Session]:
    async with _place():
        session = platform.read_sessions()
        try:
            yield session
        finally:
            await _finish(Session.close, session)


@asynccontextmanager
async def _place() -> AsyncIterator[None]:
    """Wait, on the event loop, until a session may begin; raises `Unavailable` after five seconds (R19).

    There are as many places as connections, less a few for looking up keys. Without this, requests that wait in a
    thread for a connection would keep those that hold one from getting a thread, and all would time out together.
    """
    places = _of_this_loop(_places, lambda: Semaphore(PLACES))
    with move_on_after(_PATIENCE_SECONDS) as waiting:
        await places.acquire()
    if waiting.cancelled_caught:
        raise Unavailable("overloaded", "Too many requests at once.", retry_after=2)
    try:
        yield
    finally:
        places.release()


async def _finish(end: Callable[[Session], None], session: Session) -> None:
    """End a session in a thread of its own kind, ahead of the requests that wait for a thread to begin in."""
    limiter = _of_this_loop(_finishers, lambda: CapacityLimiter(_FINISHERS))
    await to_thread.run_sync(end, session, limiter=limiter)


def _of_this_loop(held: RunVar[T], make: Callable[[], T]) -> T:
    try:
        return held.get()
    except LookupError:
        made = make()
        held.set(made)
        return made


SettingsDep = Annotated[Settings, Depends(_settings)]
StoreDep = Annotated[Store, Depends(_store)]
# Function scope: the commit happens before the reply leaves, so a failed commit answers an error.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
ReadSessionDep = Annotated[Session, Depends(_read_session, scope="function")]
ReadKey = Annotated[Principal, Depends(require("read"))]
WriteKey = Annotated[Principal, Depends(require("write"))]
AdminKey = Annotated[Principal, Depends(require("admin"))]
