"""Bring the schema up to date, under a lock, and refuse one that is too new for this program (R21).

Revisions are numbered (`migrations/versions/0001_initial.py` is revision 0001), so that a starting process can tell
where it stands without loading Alembic. A newer schema is no hindrance while its floor, the oldest revision whose
program it still takes, is one that this program knows: so a new version can be rolled back without touching the data.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sqlalchemy import Connection, String, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Mapped, mapped_column

import migrations
from app.db import READS, Base, make_engine
from app.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(migrations.__file__).parent
_LOCK = 0x6D696772617465  # "migrate"
_LOCK_SECONDS = 60


class SchemaFloor(Base):
    """One row: the oldest revision whose program may work on this schema. Migrations that only add leave it alone."""

    __tablename__ = "schema_floor"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)


class SchemaError(Exception):
    """The database's schema does not fit this program; the message says what to do."""


def migrate(settings: Settings) -> None:
    """Upgrade to the newest revision. A SQLite file that holds an older one is copied first.

    Raises `SchemaError` when the database is too new for this program.
    """
    from alembic import command

    with _exclusive(settings), _connected(settings) as connection:
        if connection.dialect.name == "postgresql":
            # The lock lives and dies with this one connection, and the work happens on it too.
            connection.execute(text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
        current = usable_revision(connection)
        if serves(current):
            return
        if current is not None:
            _copy_first(settings, current)
        connection.rollback()
        command.upgrade(alembic_config(connection), "head")
        connection.commit()


def check_schema(settings: Settings) -> None:
    """Raises `SchemaError` unless this program may work on the database's schema."""
    with _connected(settings) as connection:
        current = usable_revision(connection.execution_options(**READS))
    if not serves(current):
        have = "has no schema" if current is None else f"has the older schema {current}"
        raise SchemaError(f"The database {have}; run `groundwork migrate` first.")


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for one open connection; there is no ini file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """Every revision this program knows, oldest first."""
    return sorted(path.name.partition("_")[0] for path in (FOLDER / "versions").glob("[0-9]*_*.py"))


def head() -> str:
    """This program's own revision."""
    return revisions()[-1]


def checked_revision(connection: Connection) -> str | None:
    """The database's revision, None when it is empty; raises `SchemaError` when it is not one of ours."""
    current = _stored(connection, "alembic_version", "version_num")
    if current is not None and current not in revisions():
        raise SchemaError(f"The database's schema {current} is newer than this program; update the program.")
    return current


def usable_revision(connection: Connection) -> str | None:
    """The same, but a newer one passes as long as its floor is one of ours."""
    if _stored(connection, "schema_floor", "revision") in revisions():
        return _stored(connection, "alembic_version", "version_num")
    return checked_revision(connection)


def serves(current: str | None) -> bool:
    """Whether this program may work on a schema that `usable_revision` let pass: on its own, and on newer ones."""
    return current is not None and (current == head() or current not in revisions())


def _stored(connection: Connection, table: str, column: str) -> str | None:
    if not inspect(connection).has_table(table):
        return None
    found: str | None = connection.execute(text(f"SELECT {column} FROM {table}")).scalar()
    return found


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    engine = make_engine(settings.database)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


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


def hold_alone(settings: Settings) -> IO[str]:
    """Keep a second API process away from a SQLite file for as long as the returned file is open (F10).

    Raises `SchemaError` when there is one already. PostgreSQL takes any number.
    """
    file = _sqlite_file(settings)
    lock = open(os.devnull if file is None else f"{file}.serving", "w")  # noqa: SIM115
    try:
        if file is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SchemaError(f"Another API process already serves {file}; SQLite takes one.") from None
    return lock


def _copy_first(settings: Settings, revision: str) -> None:
    file = _sqlite_file(settings)
    if file is None:
        return
    # The backup call also takes what is still in the write-ahead log, which a copy of the file would miss.
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(f"{file}.before-{revision}")) as copy:
        old.backup(copy)
