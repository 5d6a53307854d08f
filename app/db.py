"""One engine, one Session type, one commit at the edge.

Times are integers from the database's own clock in milliseconds (R22): leases never trust a host's wall clock.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import structlog
from pydantic_core import from_json
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    create_engine,
    event,
    literal_column,
    text,
)
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

log = structlog.get_logger(__name__)

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
_AFTER_COMMIT = "after_commit"
READS = {"reads": True}  # execution options of a transaction that only reads
LOOKUPS = {"lookups": True}
MAX_CONNECTIONS = 40  # of one process
_IDLE_SECONDS = 1.0


# Milliseconds since 1970; SQLite's unixepoch('subsec') needs version 3.42, Debian 12 has 3.40.
_MILLISECONDS = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}
_NOW = {name: text(f"SELECT {expression}") for name, expression in _MILLISECONDS.items()}


class Base(DeclarativeBase):
    """Base of every row class; a row class lives in its domain's `tables.py`."""

    metadata = MetaData(naming_convention=NAMING)


def make_engine(url: str) -> Engine:
    """SQLite in WAL mode with BEGIN IMMEDIATE (deferred ones lose updates silently), or PostgreSQL by psycopg 3.

    The pool waits five seconds and then gives up, which the edge answers with 503; parameters never show in errors.
    """
    pool: dict[str, Any] = {"pool_size": MAX_CONNECTIONS // 2, "max_overflow": MAX_CONNECTIONS // 2}
    pool |= {"pool_timeout": 5, "hide_parameters": True, "json_deserializer": _from_json}
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 5, "check_same_thread": False}, **pool)
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url, connect_args={"connect_timeout": 5}, **pool)
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _ping_when_idle(engine))
    return engine


def reading(engine: Engine) -> Engine:
    """The same pool for transactions that only read: on SQLite they never take the write lock.

    On PostgreSQL each statement sees what is committed when it begins, in a transaction or not: without one, a read
    costs one round trip instead of three.
    """
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**READS)
    return engine.execution_options(**READS, isolation_level="AUTOCOMMIT")


def looking_up(engine: Engine) -> Engine:
    """The same pool for single SELECTs: no transaction is begun or ended around them."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**LOOKUPS)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """Rows stay readable after the commit: a route returns what its service gave it."""
    return sessionmaker(engine, expire_on_commit=False)


def after_commit(session: Session, ring: Callable[[], object]) -> None:
    """Run `ring` once the session's transaction is committed; never when it is rolled back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(ring)


def commit(session: Session) -> None:
    """Commit, then ring what waited for it. A failing ring is logged: the work is already durable."""
    session.commit()
    for ring in session.info.pop(_AFTER_COMMIT, ()):
        try:
            ring()
        except Exception:
            log.warning("after_commit_failed", exc_info=True)


def now_ms(session: Session | Connection) -> int:
    """The database's clock, unix milliseconds."""
    connection = session if isinstance(session, Connection) else session.connection()
    return int(connection.execute(_NOW[connection.dialect.name]).scalar_one())


def millisecond(dialect: str) -> ColumnElement[int]:
    """The same as part of a statement."""
    return literal_column(_MILLISECONDS[dialect], BigInteger)


def _from_json(raw: str | bytes) -> Any:
    """A JSON column's value, three times as fast as by the standard library, whose words go for what it alone reads."""
    try:
        return from_json(raw)
    except ValueError:
        return json.loads(raw)


def _sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("lookups"):
        connection.exec_driver_sql("BEGIN" if options.get("reads") else "BEGIN IMMEDIATE")


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _ping_when_idle(engine: Engine) -> Callable[[Any, ConnectionPoolEntry, Any], None]:
    """Ask a connection that lay idle whether it still lives; asking each time would cost a round trip a request."""

    def ping(connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", time.monotonic()) < _IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error  # the pool opens another

    return ping
