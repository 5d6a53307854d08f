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

from sqlalchemy import ColumnElement, Select, bindparam, func, select
from sqlalchemy.orm import Session

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


def choices(session: Session, wanted: Wanted, at: int) -> Iterator[ColumnElement[bool]]:
    """Which row to take: this one; or, project by project, the first that nobody holds, else the first of all.

    The last look waits for a lock: whoever holds a row may be about to write something else, like that its doorbell
    was rung, and would leave a job behind that nobody took.
    """
    if wanted.job_id is not None:
        yield Job.id == wanted.job_id
        return
    pick = select(Job.id).order_by(Job.rank, Job.available_at, Job.id).limit(1)
    projects = waiting(session, wanted, at)
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


def waiting(session: Session, wanted: Wanted, at: int) -> Sequence[str]:
    """The projects with something to take, in the order of their turns."""
    given = {"queue": wanted.queue, "at": at}
    return list(session.connection().execute(_waiting(wanted.short), given).scalars())


@cache
def _waiting(short: bool) -> Select[Any]:
    """The query of `waiting`, built once: building it costs more than asking it.

    The recursion steps from one project to the next along `ix_jobs_claim`: a DISTINCT would read every queued job.
    """
    queue, at = bindparam("queue", type_=Job.queue.type), bindparam("at", type_=Job.available_at.type)
    ready: list[ColumnElement[bool]] = [Job.status == Status.QUEUED, Job.queue == queue, Job.available_at <= at]
    ready += [Job.type.in_(SHORT)] if short else []
    project = select(func.min(Job.project_id).label("project_id")).where(*ready).cte("waiting", recursive=True)
    following = select(func.min(Job.project_id)).where(*ready, Job.project_id > project.c.project_id).scalar_subquery()
    project = project.union_all(select(following).where(project.c.project_id.is_not(None)))
    mine = (Job.project_id == project.c.project_id, Job.queue == queue)
    running = select(func.count()).where(*mine, Job.status.in_(HELD)).scalar_subquery()
    served = select(func.max(Job.started_at)).where(*mine).scalar_subquery()
    order = (running, func.coalesce(served, 0), project.c.project_id)
    return select(project.c.project_id).where(project.c.project_id.is_not(None)).order_by(*order)


_TAKE_TURN = select(func.pg_try_advisory_xact_lock(func.hashtextextended(bindparam("turn"), 0)))
