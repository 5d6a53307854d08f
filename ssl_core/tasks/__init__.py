"""Every file beside this one that defines one `Task` is part of the platform; nothing else must be edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ssl_core.registry import scan, union
from ssl_core.tasks.base import Task

TASKS: dict[str, type[Task]] = scan(__name__, Task)

if TYPE_CHECKING:
    AnyTask: TypeAlias = Task
else:
    AnyTask = union(TASKS)

__all__ = ["TASKS", "AnyTask", "Task"]
