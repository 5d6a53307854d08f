"""One database as one file, and back: SQLite's online backup, PostgreSQL's own `pg_dump` and `pg_restore`."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL, make_url

SQLITE, POSTGRESQL = "groundwork.db", "database.dump"


class BackupError(Exception):
    """It cannot be done; the message is one line that says why and what to do."""


def name_of(database: str) -> str:
    """What the file is called, which also says what made it."""
    return SQLITE if make_url(database).get_backend_name() == "sqlite" else POSTGRESQL


def dump(database: str, target: Path) -> None:
    """Write the database as it is at one moment, while others write; seen whole or not at all. Raises BackupError."""
    url, part = make_url(database), target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as live, closing(sqlite3.connect(part)) as copy:
            # In one piece: copied page by page it would begin anew whenever somebody writes.
            live.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")
    else:
        _run("pg_dump", url, ["--format=custom", "--no-owner", "--no-privileges", f"--file={part}"])
    part.chmod(0o600)
    part.replace(target)


def load(source: Path, database: str) -> None:
    """Fill an empty database; whole or not at all. Raises BackupError."""
    url = make_url(database)
    if name_of(database) != source.name:
        kind = "SQLite" if source.name == SQLITE else "PostgreSQL"
        raise BackupError(f"the backup is of {kind}, GROUNDWORK_DATABASE_URL is not")
    if source.name == SQLITE:
        file = Path(str(url.database))
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        shutil.copyfile(source, part)
        # What an earlier file of that name left in its log is not this one's.
        for leftover in ("-wal", "-shm"):
            file.with_name(f"{file.name}{leftover}").unlink(missing_ok=True)
        part.replace(file)
    else:
        options = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]
        _run("pg_restore", url, [*options, f"--dbname={url.database}", str(source)])


def _run(program: str, url: URL, options: list[str]) -> None:
    """One of PostgreSQL's programs; the password goes by the environment, never by the command line (R26)."""
    host = url.query.get("host", url.host)
    given = {"PGHOST": host, "PGPORT": url.port, "PGUSER": url.username, "PGPASSWORD": url.password}
    given |= {"PGDATABASE": url.database, "PGSSLMODE": url.query.get("sslmode"), "PGCONNECT_TIMEOUT": "10"}
    environment = os.environ | {name: str(value) for name, value in given.items() if value}
    try:
        done = subprocess.run([program, *options], env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        words = f"{program} is not installed; it comes with PostgreSQL's client and must be as new as the server"
        raise BackupError(words) from None
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
        raise BackupError(f"{program} failed: {last.strip()}")
