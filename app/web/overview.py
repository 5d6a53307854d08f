"""The first page: what runs, what is new, what to do next."""

from __future__ import annotations

from fastapi import Request, Response

from app.datasets import service as datasets
from app.datasets.schemas import as_object as as_dataset
from app.deps import ReadKey, ReadSessionDep, SettingsDep
from app.jobs import reading
from app.jobs import service as jobs
from app.jobs.states import Status
from app.models import service as models
from app.models.schemas import as_object as as_model
from app.pagination import Page
from app.web import rows
from app.web.edge import listed, page, page_router

router = page_router()
_FEW = Page(limit=5, after=None, order="desc")
_SEVERAL = Page(limit=8, after=None, order="desc")


@router.get("")
def overview_page(request: Request, key: ReadKey, session: ReadSessionDep, settings: SettingsDep) -> Response:
    """Running jobs first, then the newest of everything."""
    running = reading.jobs(key.project_id, reading.JobFilter(status=Status.RUNNING))
    recent = reading.jobs(key.project_id, reading.JobFilter())
    at_work = listed(session, running, _SEVERAL, lambda row: row)
    newest = listed(session, recent, _SEVERAL, lambda row: row)
    return page(
        request, "overview.html", title="Overview",
        live=jobs.live_count(session, key.project_id, settings.max_queued_jobs), running=at_work,
        rows=rows.job_rows(session, key.project_id, newest["data"]),
        datasets=listed(session, datasets.of_project(key.project_id), _FEW, as_dataset),
        models=listed(session, models.of_project(key.project_id), _FEW, as_model),
    )  # fmt: skip
