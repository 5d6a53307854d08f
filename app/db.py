"""One engine, one Session type, one commit at the edge.

Times are integers from the database's own clock in milliseconds (R22): leases never trust a host's wall clock.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of every row class; a row class lives in its domain's `tables.py`."""

    metadata = MetaData(naming_convention=NAMING)


def make_engine(url: str) -> Engine:
    """SQLite in WAL mode with BEGIN IMMEDIATE (deferred transactions lose updates silently), or PostgreSQL by psycopg 3."""
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 5, "check_same_thread": False})
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return create_engine(url, pool_pre_ping=True, pool_size=16, max_overflow=16, pool_timeout=5)


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Rows stay readable after the commit: a route returns what its service gave it."""
    return sessionmaker(engine, expire_on_commit=False)


def now_ms(session: Session) -> int:
    """The database's clock, unix milliseconds."""
    if session.get_bind().dialect.name == "sqlite":
        query = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    else:
        query = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
    return int(session.execute(text(query)).scalar_one())


def _sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
