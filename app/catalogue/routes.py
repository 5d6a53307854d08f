"""`/v1/objectives`, `/v1/backbones`, `/v1/tasks`: forms and command lines are built from these."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import AfterValidator

from app.catalogue import service
from app.catalogue.schemas import BackboneList, ObjectiveList, TaskList
from app.deps import ReadKey
from app.edge import api_router
from ssl_core.modalities import MODALITIES

router = api_router("catalogue")


def _known(modality: str | None) -> str | None:
    if modality is not None and modality not in MODALITIES:
        raise ValueError(f"{modality!r} is not known; use {', '.join(MODALITIES)}")
    return modality


Modality = Annotated[
    str | None,
    Query(max_length=32, description="only what fits this modality", json_schema_extra={"enum": list(MODALITIES)}),
    AfterValidator(_known),
]
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "the list with the `ETag` of `If-None-Match`"}}


@router.get("/objectives", response_model=ObjectiveList, responses=_NOT_MODIFIED)
def list_objectives(request: Request, key: ReadKey, modality: Modality = None) -> Response:
    """Every pretext objective with its fields, defaults, bounds and paper."""
    return _answer(request, service.objectives(modality))


@router.get("/backbones", response_model=BackboneList, responses=_NOT_MODIFIED)
def list_backbones(request: Request, key: ReadKey, modality: Modality = None) -> Response:
    """Every named encoder with its shape."""
    return _answer(request, service.backbones(modality))


@router.get("/tasks", response_model=TaskList, responses=_NOT_MODIFIED)
def list_tasks(request: Request, key: ReadKey, modality: Modality = None) -> Response:
    """Every supervised task with its fields, defaults and bounds."""
    return _answer(request, service.tasks(modality))


def _answer(request: Request, catalogue: service.Catalogue) -> Response:
    tag = f'"{catalogue.sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    asked = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return Response(catalogue.body, headers=headers, media_type="application/json")
