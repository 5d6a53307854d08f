"""Batches that did not end within their window."""

from __future__ import annotations

from app.jobs import sweeps
from app.platform import Platform, read_scope, session_scope


def sweep(platform: Platform) -> int:
    """End them; returns how many. One transaction each, so that a sweep that dies has done whole steps only."""
    with read_scope(platform) as session:
        late = sweeps.late_batches(session)
    for job_id in late:
        with session_scope(platform) as session:
            sweeps.expire_batch(session, job_id)
    return len(late)
