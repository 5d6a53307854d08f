"""Bring the schema up to date, under a lock, and refuse one that is newer than this program (R21)."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

import migrations
from app.db import make_engine
from app.settings import Settings

_LOCK = 0x6D696772617465  # "migrate"
_LOCK_SECONDS = 60


class SchemaError(Exception):
    """The database's schema does not fit this program; the message says what to do."""


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for one open connection; there is no ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


def migrate(settings: Settings) -> None:
    """Upgrade to the newest revision. A SQLite file that holds an older one is copied first.

    Raises `SchemaError` when the database is newer than this program.
    """
    engine = make_engine(settings.database)
    try:
        with _exclusive(settings), engine.connect() as connection:
            # The lock lives and dies with this one connection; the work happens on it too.
            if engine.dialect.name == "postgresql":
                connection.execute(text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
                connection.commit()
            current = _checked_revision(connection)
            if current == head():
                return
            if current is not None:
                _copy_first(settings, current)
            connection.rollback()
            command.upgrade(alembic_config(connection), "head")
            connection.commit()
    finally:
        engine.dispose()


def check_schema(settings: Settings) -> None:
    """Raises `SchemaError` unless the database is at this program's revision."""
    engine = make_engine(settings.database)
    try:
        with engine.connect() as connection:
            current = _checked_revision(connection)
    finally:
        engine.dispose()
    if current != head():
        have = "has no schema" if current is None else f"has the older schema {current}"
        raise SchemaError(f"The database {have}; run `groundwork migrate` first.")


def head() -> str | None:
    """This program's own revision."""
    return _scripts().get_current_head()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(migrations.__file__).parent))


def _checked_revision(connection: Connection) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _scripts().walk_revisions()}
    if current is not None and current not in known:
        raise SchemaError(f"The database's schema {current} is newer than this program; update the program.")
    return current


def _sqlite_file(settings: Settings) -> Path | None:
    url = make_url(settings.database)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """SQLite has no lock that outlives a transaction: a lock file beside it keeps two migrations apart."""
    file = _sqlite_file(settings)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.migrating").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_first(settings: Settings, revision: str) -> None:
    file = _sqlite_file(settings)
    if file is None:
        return
    # The backup call also takes what is still in the write-ahead log, which a copy of the file would miss.
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(f"{file}.before-{revision}")) as copy:
        old.backup(copy)
