"""API shapes of the catalogue. Entries are part of the installation, not made by anyone: they carry no `created_at`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.pagination import Listing

_OBJECTIVE: dict[str, Any] = {
    "object": "objective", "id": "mlm", "name": "mlm", "description": "Masked language modelling.",
    "modalities": ["text"], "defaults": {"mask_probability": 0.3}, "encoders": ["transformer"], "views": ["tokens"],
    "parameters": {"type": "object", "properties": {"mask_probability": {"type": "number", "default": 0.3}}},
    "paper": "Devlin et al. 2019, https://arxiv.org/abs/1810.04805",
}  # fmt: skip
_TASK: dict[str, Any] = {
    "object": "task", "id": "classification", "name": "classification", "description": "One label for each sample.",
    "modalities": ["text", "image"], "defaults": {"mode": "full"}, "views": ["sample"], "paper": "",
    "parameters": {"type": "object", "properties": {"mode": {"enum": ["full", "linear_probe"]}}},
    "best_metric": "accuracy",
}  # fmt: skip
_BACKBONE: dict[str, Any] = {
    "object": "backbone", "id": "text-small", "name": "text-small", "description": "transformer, 256 wide, 4 deep",
    "modalities": ["text"], "defaults": {"width": 256, "depth": 4, "heads": 4}, "family": "transformer",
    "parameters": {"type": "object", "properties": {"width": {"type": "integer"}}}, "has_tokens": True,
}  # fmt: skip


class _Entry(BaseModel):
    id: str = Field(description="the name, as job specs use it")
    name: str
    description: str
    modalities: list[str] = Field(description="modalities it fits")
    defaults: dict[str, Any] = Field(description="every field that may be left out, with its value then")
    parameters: dict[str, Any] = Field(description="JSON Schema of its fields")


class ObjectiveObject(_Entry):
    """A pretext objective."""

    model_config = ConfigDict(json_schema_extra={"examples": [_OBJECTIVE]})

    object: Literal["objective"] = "objective"
    encoders: list[str] = Field(description="encoder families it needs; empty = any of its modalities")
    views: list[str] = Field(description="the views of a sample it learns from")
    paper: str


class TaskObject(_Entry):
    """A supervised task."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TASK]})

    object: Literal["task"] = "task"
    views: list[str]
    paper: str
    best_metric: str = Field(description="what early stopping watches; higher is better")


class BackboneObject(_Entry):
    """A named encoder shape; `defaults` is the whole shape."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BACKBONE]})

    object: Literal["backbone"] = "backbone"
    family: str
    has_tokens: bool = Field(description="whether it offers the pooling `cls` and token objectives")


class ObjectiveList(Listing[ObjectiveObject]):
    """Every objective."""


class TaskList(Listing[TaskObject]):
    """Every task."""


class BackboneList(Listing[BackboneObject]):
    """Every backbone."""
