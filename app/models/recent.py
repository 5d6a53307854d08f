"""Models that were looked up a moment ago: what a service asks for hundreds of times a second is read once a second.

A model never changes but in its name; one that is deleted here is forgotten at once, in other processes it answers for
`SECONDS` at most (docs/decisions/0018).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

SECONDS = 1.0
_MOST = 1_000
_known: dict[tuple[str, str], tuple[float, Known]] = {}


@dataclass(frozen=True)
class Known:
    """What of a model asking it needs."""

    model_id: str
    digest: str
    config: dict[str, Any]


def recall(project_id: str, model_id: str) -> Known | None:
    """What was kept of a project's model, if it is young enough."""
    until, known = _known.get((project_id, model_id), (0.0, None))
    return known if time.monotonic() < until else None


def keep(project_id: str, known: Known) -> None:
    """Remember a model that the project has."""
    if len(_known) >= _MOST:
        _known.clear()
    _known[project_id, known.model_id] = (time.monotonic() + SECONDS, known)


def forget(project_id: str, model_id: str) -> None:
    """The model is gone."""
    _known.pop((project_id, model_id), None)
