"""How each role starts in a process of its own. Server code is imported here, and only when asked for."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from groundwork.folder import Refusal, listen, read_secrets

if TYPE_CHECKING:
    from app.settings import Settings

T = TypeVar("T")


def run_api() -> int:
    """The API until SIGTERM. Raises Refusal."""
    gc.disable()  # until it serves: walking again and again through what is imported takes a fifth of the start

    from app.main import create_app, serve
    from app.migrate import hold_alone

    settings = api_settings()
    fd = os.environ.pop("GROUNDWORK_LISTEN_FD", "")
    listener = socket.socket(fileno=int(fd)) if fd else listen(settings.host, settings.port)
    with _or_refuse(lambda: hold_alone(settings), "the API cannot start"):
        _check_schema(settings)
        app = _or_refuse(lambda: create_app(settings), "the API cannot start")
        return 0 if serve(app, listener) else 1


def run_migrate() -> int:
    """Bring the schema up to date; on an empty database make the first project and print its key. Raises Refusal."""
    from app.auth.service import bootstrap
    from app.migrate import migrate

    settings = api_settings()
    _or_refuse(lambda: migrate(settings), "the migration failed")
    if key := _or_refuse(lambda: bootstrap(settings), "the first key could not be made"):
        print(f"API key of the first project, shown once: {key}", flush=True)
    return 0


def run_worker() -> int:
    """A worker until SIGTERM."""
    from worker.main import main

    return main([])


def run_inference() -> int:
    """The inference role until SIGTERM."""
    from worker.inference import main

    main()
    return 0


def create_key(name: str, scopes: str, project: str | None) -> int:
    """Print a new key of a project, straight from the database: the way back in when the last key is lost."""
    from sqlalchemy import select

    from app.auth.service import create_key as create
    from app.auth.tables import Project
    from app.db import make_engine, make_sessions

    borrow_secrets()
    settings, wanted = api_settings(), sorted(filter(None, scopes.split(",")))
    if not wanted or set(wanted) - {"read", "write", "admin"}:
        raise Refusal(f"--scopes must be some of read, write, admin, separated by commas; got {scopes!r}")

    def make() -> str | None:
        with make_sessions(make_engine(settings.database)).begin() as session:
            known = select(Project.id).order_by(Project.created_ms).limit(1)
            found = session.scalar(known.where(Project.id == project) if project else known)
            return None if found is None else create(session, settings, found, name, wanted)[1]

    key = _or_refuse(make, "the key could not be made")
    if key is None:
        none_yet = "the database has no project yet; run `groundwork migrate`"
        raise Refusal(f"no project {project!r}" if project else none_yet)
    print(key)
    return 0


def collect_garbage(grace_hours: float, dry_run: bool) -> int:
    """Free what nothing owns and say how much it was. Raises Refusal."""
    from app.garbage import collect
    from app.platform import Platform

    borrow_secrets()
    settings = api_settings()
    _check_schema(settings)

    def run() -> str:
        platform = Platform.open(settings)
        try:
            found = collect(platform, grace_hours * 3600, dry_run)
        finally:
            platform.close()
        did = "would be deleted" if dry_run else "deleted"
        waits = found.stray - found.freed
        return (
            f"{found.objects} objects, {found.bytes} bytes; without an owner {found.stray}, {found.stray_bytes} bytes: "
            f"{found.freed} {did} ({found.freed_bytes} bytes), {waits} within their grace"
        )

    print(_or_refuse(run, "the store could not be looked through"))
    return 0


def make_backup(target: Path) -> int:
    """Copy database and store into a folder, also while everything runs. Raises Refusal."""
    from app.backup import backup
    from app.platform import Platform

    borrow_secrets()
    settings = api_settings()
    _check_schema(settings)
    platform = _or_refuse(lambda: Platform.open(settings), "the backup failed")
    try:
        done = _or_refuse(lambda: backup(platform, target), "the backup failed")
    finally:
        platform.close()
    print(f"{target}: {done.objects} objects, {done.bytes} bytes ({done.copied} objects new), and the database")
    return 0


def restore_backup(source: Path) -> int:
    """Fill an empty database and store from a backup. Raises Refusal."""
    from app.backup import read_manifest, restore

    _or_refuse(lambda: read_manifest(source), "the restore failed")
    kept, own = source / "secrets.json", Path(os.environ.get("GROUNDWORK_DATA_DIR", "data")) / "secrets.json"
    borrow_secrets()
    for name, value in read_secrets(kept).items() if kept.is_file() else ():
        os.environ.setdefault(f"GROUNDWORK_{name.upper()}", value)
    settings = api_settings()
    done = _or_refuse(lambda: restore(settings, source), "the restore failed")
    if kept.is_file() and not own.exists():
        own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
            sink.write(kept.read_bytes())
    told = f"{done.objects} objects, {done.bytes} bytes, and the database"
    print(f"{told}; {done.requeued} jobs that ran go on when a worker starts")
    return 0


def borrow_secrets() -> None:
    """What `groundwork serve` keeps in its data folder stands in for settings that the environment does not give."""
    kept = Path(os.environ.get("GROUNDWORK_DATA_DIR", "data")) / "secrets.json"
    if kept.is_file():
        for name, value in read_secrets(kept).items():
            os.environ.setdefault(f"GROUNDWORK_{name.upper()}", value)


def api_settings() -> Settings:
    """The API's settings, checked as far as that needs no server. Raises Refusal."""
    from pydantic import ValidationError
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    from app.settings import get_settings

    try:
        settings = get_settings()
    except ValidationError as error:
        raise Refusal(settings_error(error)) from error
    try:
        make_url(settings.database).get_dialect()
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        words = "must look like postgresql+psycopg://user:password@host/name or sqlite:////path/file.db"
        raise Refusal(f"GROUNDWORK_DATABASE_URL {words}") from error
    if not settings.database_url or not settings.store_url:
        check_writable(settings.data_dir)
    return settings


def settings_error(error: Exception) -> str:
    """Which variables are wrong and why; never their values, which may be secrets."""
    found = error.errors(include_input=False, include_url=False)  # type: ignore[attr-defined]
    return "; ".join(f"GROUNDWORK_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in found)


def check_writable(folder: Path) -> None:
    """Raises Refusal unless files can be made in `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Refusal(f"the data folder {folder.resolve()} cannot be written: {error.strerror or error}") from error


def _check_schema(settings: Settings) -> None:
    from sqlalchemy.exc import OperationalError

    from app.migrate import SchemaError, check_schema

    try:
        check_schema(settings)
    except SchemaError as error:
        raise Refusal(str(error)) from error
    except OperationalError as error:
        # It may come up later; until then /readyz says so (F8).
        print(f"groundwork: the database does not answer yet: {_first_line(error)}", file=sys.stderr, flush=True)


def _or_refuse(work: Callable[[], T], what: str) -> T:
    """The outcome of `work`; whatever the outside world does to it becomes one line."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.dumps import BackupError
    from app.errors import ApiError
    from app.migrate import SchemaError

    try:
        return work()
    except (SchemaError, BackupError) as error:
        raise Refusal(str(error)) from error
    except ApiError as error:
        raise Refusal(f"{what}: {error.message}") from error
    except (SQLAlchemyError, OSError, ValueError) as error:
        raise Refusal(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
