"""Objects in the store that no row names: left by a process that died between its bytes and its commit (R20).

Mark, then sweep: an object is noted when it is first seen without an owner, and deleted at a later look if nobody has
claimed it within the grace. So bytes whose row is about to be committed are safe, a pass may be killed anywhere, and
two passes at once do the same work twice and no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from sqlalchemy import BigInteger, String, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.datasets import service as datasets
from app.db import Base, now_ms
from app.jobs import service as jobs
from app.models import service as models
from app.platform import Platform, read_scope, session_scope

GRACE_SECONDS = 24 * 3600.0
_FOLDERS = ("datasets", "uploads", "jobs", "models", "doctor")
"""What lies below `imports` has a sweep of its own, by the jobs that read it."""
_BATCH = 500
T = TypeVar("T")


class StrayObject(Base):
    """An object that nobody owned when it was looked at, and since when."""

    __tablename__ = "stray_objects"

    key: Mapped[str] = mapped_column(String(700), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    marked_ms: Mapped[int] = mapped_column(BigInteger)


@dataclass
class Collected:
    """What a pass found.

    Attributes:
        objects, bytes: looked at.
        stray, stray_bytes: without an owner, those freed now included.
        freed, freed_bytes: deleted; of a dry run, what would be.
    """

    objects: int = 0
    bytes: int = 0
    stray: int = 0
    stray_bytes: int = 0
    freed: int = 0
    freed_bytes: int = 0


def collect(platform: Platform, grace_seconds: float = GRACE_SECONDS, dry_run: bool = False) -> Collected:
    """One pass over the whole store.

    Args:
        platform: whose store and database.
        grace_seconds: for how long an object must have been without an owner.
        dry_run: mark and delete nothing.
    """
    found = Collected()
    for batch in _batches(_objects(platform)):
        found.objects += len(batch)
        found.bytes += sum(size for _, size in batch)
        with read_scope(platform) as session:
            owned = _owned(session, [key for key, _ in batch])
            marks = _marks(session, [key for key, _ in batch])
            ripe = now_ms(session) - int(grace_seconds * 1000)
        stray = [(key, size) for key, size in batch if key not in owned]
        due = [(key, size) for key, size in stray if marks.get(key, ripe + 1) <= ripe]
        found.stray += len(stray)
        found.stray_bytes += sum(size for _, size in stray)
        found.freed += len(due)
        found.freed_bytes += sum(size for _, size in due)
        if not dry_run:
            _settle(platform, stray, due, [key for key in marks if key in owned])
    if not dry_run:
        _forget(platform)
    return found


def _objects(platform: Platform) -> Iterator[tuple[str, int]]:
    for folder in _FOLDERS:
        yield from platform.store.list(folder)


def _batches(each: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(each, _BATCH)):
        yield batch


def _owned(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of these keys that a row names."""
    return {key for domain in (datasets, jobs, models) for key in domain.owned(session, keys)}


def _marks(session: Session, keys: Sequence[str]) -> dict[str, int]:
    rows = session.execute(select(StrayObject.key, StrayObject.marked_ms).where(StrayObject.key.in_(keys)))
    return {row.key: row.marked_ms for row in rows}


def _settle(
    platform: Platform, stray: list[tuple[str, int]], due: list[tuple[str, int]], claimed: list[str]
) -> None:
    """Bytes first, then marks: a pass that dies between the two finds a mark without an object, and forgets it."""
    for key, _ in due:
        platform.store.delete(key)
    gone = {key for key, _ in due}
    if not (stray or claimed):
        return
    with session_scope(platform) as session:
        session.execute(delete(StrayObject).where(StrayObject.key.in_([*gone, *claimed])))
        known = _marks(session, [key for key, _ in stray])
        at = now_ms(session)
        fresh = [(key, size) for key, size in stray if key not in known and key not in gone]
        session.add_all(StrayObject(key=key, size=size, marked_ms=at) for key, size in fresh)


def _forget(platform: Platform) -> None:
    """Marks of objects that are not there any more."""
    with read_scope(platform) as session:
        marked = list(session.scalars(select(StrayObject.key)))
    lost = [key for key in marked if not platform.store.exists(key)]
    for batch in _batches(iter(lost)):
        with session_scope(platform) as session:
            session.execute(delete(StrayObject).where(StrayObject.key.in_(batch)))
