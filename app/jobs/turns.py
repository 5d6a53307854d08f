"""Whose turn it is: projects take turns, and within a project the higher priority and then the longer wait goes first.

The project with the fewest running jobs of the queue is next; between equals the one that was served longest ago, so
that also a single worker, whose projects all have nothing running when it asks, goes round. How much a project has
queued does not matter: the cost of a look depends on the number of projects that wait, not on the number of jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, func, select
from sqlalchemy.orm import Session

from app.db import millisecond
from app.jobs import clock
from app.jobs.states import HELD, Status
from app.jobs.tables import Job

SHORT = ("ingest", "import", "export", "report")
"""Types of jobs that train nothing and score nothing."""


@dataclass(frozen=True)
class Wanted:
    """What a worker asks for: this job, or any of its queue; `short`: only of those that train nothing."""

    job_id: str | None
    queue: str
    short: bool = False

    def ready(self, at: int) -> list[ColumnElement[bool]]:
        """What a job must fulfil at this time to be taken."""
        found = [Job.status == Status.QUEUED, Job.queue == self.queue, Job.available_at <= at]
        return [*found, Job.type.in_(SHORT)] if self.short else found


@dataclass(frozen=True)
class Look:
    """What a look at the queue saw: the time, and the projects with something to take in the order of their turns."""

    at: int
    projects: Sequence[str] = ()


def look(session: Session, wanted: Wanted) -> Look:
    """Whose turn it is now; of a job that is named only the time."""
    if wanted.job_id is not None:
        return Look(clock.now(session))
    given = session.info.get(clock.CLOCK)
    query = _waiting(wanted.short, None if given is not None else session.get_bind().dialect.name)
    bound = {"queue": wanted.queue} | ({} if given is None else {"at": given()})
    rows = session.connection().execute(query, bound).all()
    return Look(rows[0].at, [row.project_id for row in rows]) if rows else Look(0)


def choices(session: Session, wanted: Wanted, seen: Look) -> Iterator[ColumnElement[bool]]:
    """Which row to take: this one; or, project by project, the first that nobody holds, else the first of all.

    The last look waits for a lock: whoever holds a row may be about to write something else, like that its doorbell
    was rung, and would leave a job behind that nobody took.
    """
    if wanted.job_id is not None:
        yield Job.id == wanted.job_id
        return
    pick = select(Job.id).order_by(Job.rank, Job.available_at, Job.id).limit(1)
    at, projects = seen.at, seen.projects
    alone = next((each for each in projects if _nobody_else_takes(session, wanted.queue, each)), None)
    for project_id in [*([alone] if alone else []), *projects]:
        free = pick.where(*wanted.ready(at), Job.project_id == project_id).with_for_update(skip_locked=True)
        yield Job.id == free.scalar_subquery()
    for project_id in projects:
        held = pick.where(*wanted.ready(at), Job.project_id == project_id).with_for_update()
        yield Job.id == held.scalar_subquery()


def _nobody_else_takes(session: Session, queue: str, project_id: str) -> bool:
    """Whether no other claim is about to take from this project: claims that begin together see the same turns."""
    if session.get_bind().dialect.name != "postgresql":
        return True  # SQLite's transactions take turns themselves
    return bool(session.connection().execute(_TAKE_TURN, {"turn": f"turn:{queue}:{project_id}"}).scalar())


@cache
def _waiting(short: bool, dialect: str | None) -> Select[Any]:
    """The query of `look`, built once: building it costs more than asking it. Without a dialect the time is given.

    The recursion steps from one project to the next along `ix_jobs_claim`: a DISTINCT would read every queued job.
    """
    queue = bindparam("queue", type_=Job.queue.type)
    # In a subquery of its own it is asked for once, and an index can be searched by it.
    at = bindparam("at", type_=BigInteger) if dialect is None else select(millisecond(dialect)).scalar_subquery()
    ready: list[ColumnElement[bool]] = [Job.status == Status.QUEUED, Job.queue == queue, Job.available_at <= at]
    ready += [Job.type.in_(SHORT)] if short else []
    project = select(func.min(Job.project_id).label("project_id")).where(*ready).cte("waiting", recursive=True)
    following = select(func.min(Job.project_id)).where(*ready, Job.project_id > project.c.project_id).scalar_subquery()
    project = project.union_all(select(following).where(project.c.project_id.is_not(None)))
    mine = (Job.project_id == project.c.project_id, Job.queue == queue)
    running = select(func.count()).where(*mine, Job.status.in_(HELD)).scalar_subquery()
    served = select(func.max(Job.started_at)).where(*mine).scalar_subquery()
    order = (running, func.coalesce(served, 0), project.c.project_id)
    found = select(project.c.project_id, at.label("at")).where(project.c.project_id.is_not(None))
    return found.order_by(*order)


_TAKE_TURN = select(func.pg_try_advisory_xact_lock(func.hashtextextended(bindparam("turn"), 0)))
