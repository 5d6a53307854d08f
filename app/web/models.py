"""Pages of models: the list, and one with its card, its lineage, its files and a place to try it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request, Response

from app.deps import PageDep, ReadKey, ReadSessionDep, StoreDep
from app.errors import Conflict
from app.jobs import reading
from app.jobs.schemas import as_job
from app.jobs.states import Status
from app.models import service
from app.models.schemas import as_detail, as_file, as_object
from app.pagination import Page
from app.web import lineage
from app.web.edge import listed, page, page_router
from ssl_core.modalities import MODALITIES
from ssl_core.objectives import OBJECTIVES

router = page_router()
_FORMATS = {"native": "model folder", "hf": "transformers", "onnx": "ONNX"}
_RECENT = Page(limit=50, after=None, order="desc")


@router.get("/models")
def models_page(request: Request, key: ReadKey, session: ReadSessionDep, at: PageDep) -> Response:
    """The project's models, newest first."""
    found = listed(session, service.of_project(key.project_id), at, as_object)
    return page(request, "models.html", title="Models", found=found)


@router.get("/models/{model_id}")
def model_page(model_id: str, request: Request, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> Response:
    """One model."""
    row = service.get(session, key.project_id, model_id)
    files = service.rows_of(session, row.id)
    told, chain = [as_file(row, file) for file in files], lineage.of(session, key.project_id, as_object(row))
    exported = {name: name == "native" or _exported(session, row.id, name) for name in _FORMATS}
    maps = _maps(session, key.project_id, row.id)
    at = next((file for file in service.files_of(session, row.id) if file["path"] == "card.json"), None)
    session.close()  # nothing of the database is held while the store is read
    detail = as_detail(row, None if at is None else json.loads(store.get(at["key"])))
    return page(
        request, "model.html", title=detail.name, model=detail, files=told, chain=chain, exported=exported,
        formats=_FORMATS, maps=maps, inputs=_inputs(detail.modality), writes=_writes(row.config),
    )  # fmt: skip


def _exported(session: Any, model_id: str, name: str) -> bool:
    try:
        service.export_of(session, model_id, name)
    except Conflict:
        return False
    return True


def _maps(session: Any, project_id: str, model_id: str) -> list[Any]:
    """Embed jobs of this model that have succeeded."""
    query = reading.jobs(project_id, reading.JobFilter(Status.SUCCEEDED, "embed"))
    found = listed(session, query, _RECENT, as_job)["data"]
    return [job for job in found if job.resolved_spec.get("model") == model_id][:10]


def _inputs(modality: str) -> list[tuple[str, list[str]]]:
    """(column, media types): what a person may give it; no media types = text."""
    return [(name, list(column.media)) for name, column in MODALITIES[modality].columns.items()]


def _writes(config: dict[str, Any]) -> str:
    """`continuation` or `fills` where it answers without a task; else nothing."""
    learnt = config.get("objective") or {}
    return str(OBJECTIVES[learnt["name"]].completes or "") if learnt and config.get("task") is None else ""
