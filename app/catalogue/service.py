"""The catalogue, read off the engine's registries: a new objective, task or backbone appears here by itself."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic_core import PydanticUndefined, to_json

from app.catalogue.schemas import BackboneObject, ObjectiveObject, TaskObject
from ssl_core.backbones import BACKBONES, FAMILIES, EncoderSpec
from ssl_core.objectives import OBJECTIVES, Objective
from ssl_core.tasks import TASKS, Task
from ssl_core.values import Value


@dataclass(frozen=True)
class Catalogue:
    """One rendered list: its JSON bytes and their sha256."""

    body: bytes
    sha256: str


@cache
def objectives(modality: str | None) -> Catalogue:
    """Every objective, or those that fit a modality."""
    found = {name: kind for name, kind in OBJECTIVES.items() if modality in (None, *kind.modalities)}
    return _render([_objective(name, kind) for name, kind in found.items()])


@cache
def backbones(modality: str | None) -> Catalogue:
    """Every backbone, or those that read a modality."""
    return _render([_backbone(row) for row in BACKBONES.values() if modality in (None, *FAMILIES[row.family][0])])


@cache
def tasks(modality: str | None) -> Catalogue:
    """Every task, or those that fit a modality."""
    return _render([_task(name, kind) for name, kind in TASKS.items() if modality in (None, *kind.modalities)])


def _objective(name: str, kind: type[Objective]) -> ObjectiveObject:
    return ObjectiveObject(
        id=name, name=name, description=_words(kind), modalities=list(kind.modalities), encoders=list(kind.encoders),
        views=list(kind.views), paper=kind.paper, defaults=_defaults(kind), parameters=kind.model_json_schema(),
    )  # fmt: skip


def _task(name: str, kind: type[Task]) -> TaskObject:
    return TaskObject(
        id=name, name=name, description=_words(kind), modalities=list(kind.modalities), views=list(kind.views),
        paper=kind.paper, best_metric=kind.best_metric, defaults=_defaults(kind), parameters=kind.model_json_schema(),
    )  # fmt: skip


def _backbone(row: EncoderSpec) -> BackboneObject:
    modalities, has_tokens = FAMILIES[row.family]
    return BackboneObject(
        id=row.name, name=row.name, description=_words(EncoderSpec), family=row.family, modalities=list(modalities),
        has_tokens=has_tokens, defaults=row.model_dump(mode="json"), parameters=EncoderSpec.model_json_schema(),
    )  # fmt: skip


def _words(kind: type[Value]) -> str:
    return inspect.getdoc(kind) or ""


def _defaults(kind: type[Value]) -> dict[str, Any]:
    """Every field that has a default, with it; a field that must be given is left out."""
    given = {name: field.get_default(call_default_factory=True) for name, field in kind.model_fields.items()}
    values = {name: value for name, value in given.items() if value is not PydanticUndefined}
    dumped: dict[str, Any] = kind.model_construct(**values).model_dump(mode="json", include=set(values))
    return dumped


def _render(entries: list[Any]) -> Catalogue:
    ends = (entries[0].id, entries[-1].id) if entries else (None, None)
    listing = {"object": "list", "data": entries, "has_more": False, "first_id": ends[0], "last_id": ends[1]}
    body = to_json(listing)
    return Catalogue(body, hashlib.sha256(body).hexdigest())
