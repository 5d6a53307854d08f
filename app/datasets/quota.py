"""A project's storage: room is promised before bytes are accepted, under one row lock a project (R18).

`used_bytes` is what lies there for good, a hold is what a running request may still bring. A process that dies leaves
its hold behind; it lapses after HOLD_MS unless it is extended.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.datasets.tables import StorageAccount, StorageHold
from app.db import now_ms
from app.errors import Forbidden, TooLarge
from app.ids import new_id
from app.settings import Settings

HOLD_MS = 10 * 60 * 1000


def hold(session: Session, settings: Settings, project_id: str, size: int) -> str:
    """Promise `size` bytes to a request that will make a dataset; returns the hold's id.

    Raises:
        TooLarge: 413 `quota_exceeded`, too many bytes.
        Forbidden: 403 `quota_exceeded`, too many datasets.
    """
    _check_count(settings, _lock(session, project_id))
    row = StorageHold(id=new_id("hold"), project_id=project_id, bytes=0, expires_ms=0)
    session.add(row)
    session.flush()
    extend(session, settings, row.id, size)
    return row.id


def extend(session: Session, settings: Settings, hold_id: str, size: int) -> None:
    """Raise a hold to `size` bytes and keep it from lapsing. Raises TooLarge 413 `quota_exceeded`."""
    row = session.get_one(StorageHold, hold_id)
    account = _lock(session, row.project_id)
    _check_room(session, settings, account, size, apart_from=hold_id)
    row.bytes, row.expires_ms = size, now_ms(session) + HOLD_MS
    session.flush()


def release(session: Session, hold_id: str) -> None:
    """Give a hold back; one that is gone already is no error."""
    session.execute(delete(StorageHold).where(StorageHold.id == hold_id))


def take(session: Session, settings: Settings, project_id: str, size: int) -> None:
    """Count `size` bytes as used. Raises TooLarge 413 `quota_exceeded`."""
    account = _lock(session, project_id)
    _check_room(session, settings, account, size)
    account.used_bytes += size
    session.flush()


def charge(session: Session, project_id: str, size: int) -> None:
    """Count `size` more (or fewer) bytes without asking: they are there already, or gone."""
    account = _lock(session, project_id)
    account.used_bytes = max(0, account.used_bytes + size)
    session.flush()


def add_dataset(session: Session, settings: Settings, project_id: str) -> None:
    """Count one more dataset. Raises Forbidden 403 `quota_exceeded`."""
    account = _lock(session, project_id)
    _check_count(settings, account)
    account.datasets += 1
    session.flush()


def charge_file(session: Session, project_id: str, size: int) -> None:
    """Count one more file without asking: a job has made it."""
    account = _lock(session, project_id)
    account.datasets += 1
    account.used_bytes += size
    session.flush()


def drop_dataset(session: Session, project_id: str, size: int) -> None:
    """Count one dataset fewer, and the bytes that go with it."""
    account = _lock(session, project_id)
    account.datasets = max(0, account.datasets - 1)
    account.used_bytes = max(0, account.used_bytes - size)
    session.flush()


def _lock(session: Session, project_id: str) -> StorageAccount:
    """The project's account, made when missing, locked until the transaction ends."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(StorageAccount).values(project_id=project_id, used_bytes=0, datasets=0)
    session.execute(row.on_conflict_do_nothing())
    query = select(StorageAccount).where(StorageAccount.project_id == project_id).with_for_update()
    return session.execute(query.execution_options(populate_existing=True)).scalar_one()


def _check_count(settings: Settings, account: StorageAccount) -> None:
    if account.datasets >= settings.max_datasets:
        raise Forbidden("quota_exceeded", f"This project may keep {settings.max_datasets} datasets; delete some first.")


def _check_room(
    session: Session, settings: Settings, account: StorageAccount, size: int, apart_from: str | None = None
) -> None:
    live = (StorageHold.project_id == account.project_id, StorageHold.expires_ms > now_ms(session))
    others = select(func.coalesce(func.sum(StorageHold.bytes), 0)).where(*live, StorageHold.id != (apart_from or ""))
    promised = int(session.execute(others).scalar_one())
    left = settings.storage_quota_bytes - account.used_bytes - promised
    if size > left:
        raise TooLarge(
            "quota_exceeded",
            f"{size} bytes do not fit: this project has {max(0, left)} of {settings.storage_quota_bytes} bytes left.",
        )


def any_lapsed(session: Session) -> bool:
    """Whether `sweep_holds` would find something."""
    return session.scalar(select(StorageHold.id).where(_lapsed(session)).limit(1)) is not None


def sweep_holds(session: Session) -> None:
    """Delete holds that lapsed long ago; they count for nothing already."""
    session.execute(delete(StorageHold).where(_lapsed(session)))


def _lapsed(session: Session) -> ColumnElement[bool]:
    return StorageHold.expires_ms < now_ms(session) - HOLD_MS
