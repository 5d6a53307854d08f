"""Every file beside this one that defines one `Objective` is part of the platform; nothing else must be edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ssl_core.objectives.base import Objective
from ssl_core.registry import scan, union

OBJECTIVES: dict[str, type[Objective]] = scan(__name__, Objective)

if TYPE_CHECKING:
    AnyObjective: TypeAlias = Objective
else:
    AnyObjective = union(OBJECTIVES)

__all__ = ["OBJECTIVES", "AnyObjective", "Objective"]
