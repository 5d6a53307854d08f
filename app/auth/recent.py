"""Keys that were good a moment ago: a client that asks often is looked up once a second, not at every request.

A key that is revoked or rotated here is forgotten at once; in other processes it opens doors for `SECONDS` at most.
Only keys that opened something are kept, so strangers fill nothing.
"""

from __future__ import annotations

import time
from typing import Any

SECONDS = 1.0
_MOST = 10_000
_known: dict[str, tuple[float, Any]] = {}


def recall(key_id: str) -> Any:
    """What was kept for the key, or None."""
    until, row = _known.get(key_id, (0.0, None))
    return row if time.monotonic() < until else None


def keep(key_id: str, row: Any, seconds: float = SECONDS) -> None:
    """Remember a good key's row for so long, `SECONDS` at most."""
    if len(_known) >= _MOST:
        _known.clear()
    _known[key_id] = (time.monotonic() + min(seconds, SECONDS), row)


def forget(key_id: str) -> None:
    """The key has changed."""
    _known.pop(key_id, None)
