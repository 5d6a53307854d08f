"""Where a model comes from: a chain of data, jobs and models, the oldest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import NotFound
from app.models import service as models
from app.models.schemas import ModelObject, as_object
from app.pagination import Page
from app.web.edge import listed
from app.web.rows import TYPES, by_id

MOST_STEPS = 8
_RECENT = Page(limit=100, after=None, order="desc")


@dataclass(frozen=True)
class Node:
    """A thing of the chain; `link` is empty where it is gone."""

    kind: str
    title: str
    note: str
    link: str


@dataclass(frozen=True)
class Lineage:
    """`steps` are columns from the oldest to the model itself; `made` are models that began with it."""

    steps: list[list[Node]]
    made: list[ModelObject]


def of(session: Session, project_id: str, model: ModelObject) -> Lineage:
    """The chain of a model of this project."""
    steps: list[list[Node]] = []
    at: ModelObject | None = model
    while at is not None and len(steps) < 3 * MOST_STEPS:
        steps += [[_model(at)], [_job(at)], _data(session, project_id, at)]
        base = at.lineage.get("base_model")
        at = _found(session, project_id, base)
        if base and at is None:
            steps.append([Node("model", str(base), "gone", "")])
    recent = listed(session, models.of_project(project_id), _RECENT, as_object)["data"]
    made = [each for each in recent if each.lineage.get("base_model") == model.id]
    return Lineage([each for each in reversed(steps) if each], made)


def _found(session: Session, project_id: str, model_id: Any) -> ModelObject | None:
    if not isinstance(model_id, str):
        return None
    try:
        return as_object(models.get(session, project_id, model_id))
    except NotFound:
        return None


def _model(model: ModelObject) -> Node:
    return Node("model", model.name, model.task or model.objective or model.backbone, f"/ui/models/{model.id}")


def _job(model: ModelObject) -> Node:
    kind = str((model.lineage.get("spec") or {}).get("type", "job"))
    job = model.lineage.get("job")
    return Node("job", TYPES.get(kind, kind), "job", f"/ui/jobs/{job}" if job else "")


def _data(session: Session, project_id: str, model: ModelObject) -> list[Node]:
    used = [each for each in model.lineage.get("datasets") or [] if str(each.get("id", "")).startswith("ds_")]
    known = by_id(session, datasets.of_project(project_id), {str(each["id"]) for each in used})
    nodes = []
    for each in used:
        row = known.get(each["id"])
        title, link = (row.name, f"/ui/datasets/{row.id}") if row else (str(each["id"]), "")
        nodes.append(Node("dataset", title, str(each.get("role", "dataset")) + ("" if row else ", gone"), link))
    return nodes
