"""API shapes of the catalogue. Entries are part of the installation, not made by anyone: they carry no `created_at`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.pagination import Listing


class _Entry(BaseModel):
    id: str = Field(description="the name, as job specs use it")
    name: str
    description: str
    modalities: list[str] = Field(description="modalities it fits")
    defaults: dict[str, Any] = Field(description="every field that may be left out, with its value then")
    parameters: dict[str, Any] = Field(description="JSON Schema of its fields")


class ObjectiveObject(_Entry):
    """A pretext objective."""

    object: Literal["objective"] = "objective"
    encoders: list[str] = Field(description="encoder families it needs; empty = any of its modalities")
    views: list[str] = Field(description="the views of a sample it learns from")
    paper: str


class TaskObject(_Entry):
    """A supervised task."""

    object: Literal["task"] = "task"
    views: list[str]
    paper: str
    best_metric: str = Field(description="what early stopping watches; higher is better")


class BackboneObject(_Entry):
    """A named encoder shape; `defaults` is the whole shape."""

    object: Literal["backbone"] = "backbone"
    family: str
    has_tokens: bool = Field(description="whether it offers the pooling `cls` and token objectives")


class ObjectiveList(Listing[ObjectiveObject]):
    """Every objective."""


class TaskList(Listing[TaskObject]):
    """Every task."""


class BackboneList(Listing[BackboneObject]):
    """Every backbone."""
