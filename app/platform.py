"""What one API process holds: its settings, its database, its store. Routes reach it by app/deps.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.db import commit, looking_up, make_engine, make_sessions, reading
from app.settings import Settings
from app.storage import Store


@dataclass(frozen=True)
class Platform:
    """Made once by `create_app`; background threads get it too."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    read_sessions: sessionmaker[Session]
    store: Store

    @classmethod
    def open(cls, settings: Settings) -> Platform:
        """Connects to nothing yet: a database or store that is down shows in /readyz, not as a dead process (F8)."""
        engine = make_engine(settings.database)
        return cls(settings, engine, make_sessions(engine), make_sessions(reading(engine)), Store.open(settings.store))

    @cached_property
    def lookups(self) -> Engine:
        """The same pool for single SELECTs without a transaction around them."""
        return looking_up(self.engine)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


@contextmanager
def session_scope(platform: Platform) -> Iterator[Session]:
    """One transaction outside a request: commits at the end, then rings what waits for it; an exception rolls back."""
    with platform.sessions() as session:
        yield session
        commit(session)


@contextmanager
def read_scope(platform: Platform) -> Iterator[Session]:
    """One read-only transaction outside a request."""
    with platform.read_sessions() as session:
        yield session
