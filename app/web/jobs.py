"""Pages of jobs: the list, one job live, several side by side, and the form for a new one."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from app.deps import PageDep, ReadKey, ReadSessionDep, StoreDep
from app.errors import NotFound
from app.jobs import artifacts, points, reading, service
from app.jobs.schemas import EventObject, as_checkpoint, as_detail, as_event, as_file, as_sample
from app.jobs.states import LIVE, Status
from app.pagination import Page
from app.storage import Store
from app.web import rows
from app.web.edge import listed, page, page_router

router = page_router()
SHOWN_BYTES = 20_000
_NEWEST = Page(limit=50, after=None, order="desc")
_FILL = re.compile(r"\[([^\[\]>]*) > ([^\[\]]*)\]")


@router.get("/jobs")
def jobs_page(
    request: Request,
    key: ReadKey,
    session: ReadSessionDep,
    at: PageDep,
    status: Annotated[str, Query(max_length=20)] = "",
    type: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """The project's jobs, newest first."""
    known = Status(status) if status in set(Status) else None
    kind: Any = type if type in rows.TYPES else None
    found = listed(session, reading.jobs(key.project_id, reading.JobFilter(known, kind)), at, lambda row: row)
    return page(
        request, "jobs.html", title="Jobs", found=found, rows=rows.job_rows(session, key.project_id, found["data"]),
        status=status, type=type, statuses=list(Status), types=rows.TYPES, live=LIVE,
    )  # fmt: skip


@router.get("/jobs/{job_id}")
def job_page(job_id: str, request: Request, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> Response:
    """One job: where it stands, its curves, what it made."""
    job = service.get(session, key.project_id, job_id)
    detail = as_detail(job, reading.attempts(session, job))
    found = listed(session, reading.samples(job_id), _NEWEST, as_sample)["data"]
    events = listed(session, reading.events(job_id), _NEWEST, as_event)["data"]
    return page(
        request, "job.html", title=rows.title(detail), job=detail, job_title=rows.title(detail),
        names=rows.names(session, key.project_id, [detail.resolved_spec]), live=detail.status in LIVE,
        samples=[_shown(session, store, job_id, each) for each in _latest(found)], events=events,
        checkpoints=listed(session, reading.checkpoints(job_id), _NEWEST, as_checkpoint)["data"],
        files=[as_file(job_id, row) for row in artifacts.result_files(session, job)],
        part_rows=_parts(session, key.project_id, job_id) if detail.type == "label_efficiency" else [],
        series=points.series_names(session, job_id), leads=_leads(detail.error, events),
    )  # fmt: skip


def _parts(session: Session, project_id: str, job_id: str) -> list[rows.JobRow]:
    query = reading.jobs(project_id, reading.JobFilter(part_of=job_id))
    found = listed(session, query, Page(limit=100, after=None, order="asc"), lambda row: row)["data"]
    return rows.job_rows(session, project_id, found)


def _latest(samples: list[Any]) -> list[Any]:
    """The newest of each name: a run makes the same again and again."""
    return list({each.name: each for each in reversed(samples)}.values())


def _shown(session: Session, store: Store, job_id: str, sample: Any) -> dict[str, Any]:
    """A sample, a text of it with what was filled in told apart from what stood there."""
    if sample.media_type != "text/plain":
        return {"sample": sample, "lines": []}
    try:
        _, file = artifacts.sample_file(session, job_id, sample.id)
    except NotFound:  # it is still on its way
        return {"sample": sample, "lines": []}
    text = store.get_range(file.key, 0, min(file.size, SHOWN_BYTES)).decode("utf-8", "replace") if file.size else ""
    return {"sample": sample, "lines": [_pieces(line) for line in text.splitlines()]}


def _pieces(line: str) -> list[tuple[str, str]]:
    """A line as (plain, "") and (true, guessed) pieces."""
    found: list[tuple[str, str]] = []
    at = 0
    for match in _FILL.finditer(line):
        found += [(line[at : match.start()], ""), (match[1], match[2])]
        at = match.end()
    return [*found, (line[at:], "")]


def _leads(error: Any, events: list[EventObject]) -> list[EventObject]:
    """Warnings worth the top of the page."""
    worth = {each.code: each for each in events if each.level != "info"}
    return [] if error else list(worth.values())[:3]
