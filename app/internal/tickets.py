"""The ticket: where an attempt finds its inputs and checkpoints, as paths on this API."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from sqlalchemy.orm import Session

from app.internal.schemas import Ticket, TicketCheckpoint, TicketFile, TicketInput
from app.jobs import artifacts
from app.jobs.attempts import Claimed
from app.models.service import StoredFile
from app.settings import Settings

BASE = "/internal/v1"


def ticket(session: Session, claimed: Claimed, settings: Settings) -> Ticket:
    """All that the attempt needs; the token is in it, and nowhere else."""
    job = claimed.job
    base = f"{BASE}/jobs/{job.id}"
    inputs = [
        TicketInput(id=each.id, role=each.role, digest=each.digest, files=files(f"{base}/inputs/{each.id}", each.files))
        for each in claimed.inputs
    ]
    checkpoints = [
        TicketCheckpoint(id=row.id, step=row.step, files=files(f"{base}/checkpoints/{row.id}", _typed(row.files)))
        for row in (artifacts.usable_checkpoints(session, job.id) if job.fence > 1 else ())
    ]
    return Ticket(
        job_id=job.id, attempt=job.fence, fence=job.fence, token=claimed.token, lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds, spec=job.resolved_spec, inputs=inputs, checkpoints=checkpoints,
        traceparent=job.traceparent,
    )  # fmt: skip


def files(base: str, stored: Iterable[StoredFile]) -> list[TicketFile]:
    """Each file with its path on this API below `base`."""
    return [
        TicketFile(path=file["path"], size=file["size"], sha256=file["sha256"], url=f"{base}/{quote(file['path'])}")
        for file in stored
    ]


def _typed(rows: list[dict[str, object]]) -> list[StoredFile]:
    return [
        StoredFile(path=str(r["path"]), size=int(str(r["size"])), sha256=str(r["sha256"]), key=str(r["key"]))
        for r in rows
    ]
