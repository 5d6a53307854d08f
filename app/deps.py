"""What a route may ask for, as Annotated types, so that a handler reads aloud."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from app.auth.guard import Principal, require
from app.db import commit
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
    session = platform.sessions()
    request.state.session = session
    try:
        yield session
        await run_in_threadpool(commit, session)
    finally:
        await run_in_threadpool(session.close)


async def _read_session(platform: PlatformDep) -> AsyncIterator[Session]:
    session = platform.read_sessions()
    try:
        yield session
    finally:
        await run_in_threadpool(session.close)


SettingsDep = Annotated[Settings, Depends(_settings)]
StoreDep = Annotated[Store, Depends(_store)]
# Function scope: the commit happens before the reply leaves, so a failed commit answers an error.
SessionDep = Annotated[Session, Depends(_session, scope="function")]
ReadSessionDep = Annotated[Session, Depends(_read_session, scope="function")]
ReadKey = Annotated[Principal, Depends(require("read"))]
WriteKey = Annotated[Principal, Depends(require("write"))]
AdminKey = Annotated[Principal, Depends(require("admin"))]
