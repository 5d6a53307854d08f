"""The only seam between the engine and whatever runs it (a platform, a test, a notebook)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

StopReason = Literal["cancel", "pause", "drain"]


class Stopped(Exception):
    """Asked to leave outside of training, where there is nothing to save."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class RunContext(Protocol):
    """What a run needs from outside."""

    workdir: Path

    def emit(self, type: str, **fields: Any) -> None:
        """Record an event of `ssl_core.events` (its `seq` and `time` are filled in)."""

    def should_stop(self) -> StopReason | None:
        """Why to save and stop now, or None to go on. Cheap enough to ask every step."""


class MemoryContext:
    """The shipped fake: keeps events in a list, stops when told."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.events: list[dict[str, Any]] = []
        self.stop: StopReason | None = None

    def emit(self, type: str, **fields: Any) -> None:
        self.events.append({"type": type, **fields})

    def should_stop(self) -> StopReason | None:
        return self.stop
