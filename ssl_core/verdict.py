"""What a failed run says in `result.json` (docs/contracts.md §2). Imports without torch."""

from __future__ import annotations

import errno
from typing import Any

from ssl_core.context import Stopped
from ssl_core.errors import EngineError

__all__ = ["Stopped", "failure"]


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
