"""Which time it is, for leases and backoff: the database's clock (R22), or a test's own through `session.info`."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from app.db import now_ms

CLOCK = "groundwork.clock"
"""Key of `session.info` under which a test puts a `() -> int` of unix milliseconds."""


def now(session: Session) -> int:
    """Unix milliseconds."""
    clock: Callable[[], int] | None = session.info.get(CLOCK)
    return clock() if clock is not None else now_ms(session)
