"""What ran out of time gives back its room: uploads nobody completed, and holds of requests that died (R18, B39)."""

from __future__ import annotations

from app.datasets import uploads
from app.platform import Platform, read_scope, session_scope


def sweep(platform: Platform) -> int:
    """Free them; returns how many uploads expired. Looks first, so that an idle database is not written to."""
    with read_scope(platform) as session:
        if not uploads.overdue(session):
            return 0
    with session_scope(platform) as session:
        return uploads.sweep(session, platform.store)
