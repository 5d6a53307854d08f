"""What a run ends with: `result.json` of docs/contracts.md §2."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core import distributed
from ssl_core.context import RunContext, StopReason
from ssl_core.errors import EngineError
from ssl_core.export import Card, export
from ssl_core.nets import Nets
from ssl_core.run_context import plain
from ssl_core.trainer import Outcome


class Stopped(Exception):
    """Asked to leave outside of training, where there is nothing to save."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Finished:
    """A call of `train` that came back, with all that an export needs."""

    nets: Nets
    outcome: Outcome
    card: Card
    tokenizer: Path | None


def finish(context: RunContext, run: Finished) -> dict[str, Any]:
    """Export a finished run, or say where a stopped one stands."""
    state = run.outcome.state
    if run.outcome.status == "stopped":
        return {"status": "stopped", "reason": run.outcome.reason, "step": state.step}
    context.emit("stage", stage="exporting")
    config = export(context.workdir, run.nets, run.card, run.tokenizer) if distributed.is_main() else {}
    return {"status": "succeeded", "metrics": plain(run.card.metrics), "summary": config}


def failure(error: BaseException) -> dict[str, Any]:
    """The verdict on an exception, in words for a user; the traceback belongs into the log."""
    if isinstance(error, EngineError):
        told = {"class": error.error_class, "code": error.code, "message": error.message, "param": error.param}
    elif isinstance(error, MemoryError):
        text = "the machine ran out of memory; use a smaller batch_size, a smaller backbone or less data"
        told = {"class": "oom", "code": "out_of_memory", "message": text, "param": None}
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        told = {"class": "infra", "code": "disk_full", "message": "the worker's disk is full", "param": None}
    else:
        text = f"the engine failed unexpectedly ({type(error).__name__}); the job's log has the details"
        told = {"class": "infra", "code": "engine_error", "message": text, "param": None}
    return {"status": "failed", "error": told}
