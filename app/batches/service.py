"""Jobs of type `batch` in OpenAI's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.batches.schemas import BatchError, BatchErrors, BatchObject, BatchUsage, RequestCounts, Status
from app.jobs import pages
from app.jobs.endings import batch_status
from app.jobs.limits import BATCH_MS
from app.jobs.schemas import EventObject, JobObject
from app.pagination import Page

_ENDED: dict[str, Status] = {
    "completed": "completed", "failed": "failed", "expired": "expired", "cancelled": "cancelled"
}  # fmt: skip
_BEFORE = (None, "validating")
_COMPUTING = ("embedding", "predicting")


def listed(session: Session, project_id: str, page: Page) -> dict[str, Any]:
    """A page of the project's batches."""
    found = pages.batches(session, project_id, page)
    return {**found, "data": shown(session, found["data"])}


def get(session: Session, project_id: str, job_id: str) -> BatchObject:
    """Raises NotFound."""
    return shown(session, [pages.one_batch(session, project_id, job_id)])[0]


def shown(session: Session, jobs: Sequence[JobObject]) -> list[BatchObject]:
    """Each in OpenAI's words."""
    notes = pages.batch_notes(session, [job.id for job in jobs])
    failed = pages.highest(session, [job.id for job in jobs if job.result is None], "batch/failed")
    return [_batch(job, notes.get(job.id, []), int(failed.get(job.id, 0))) for job in jobs]


def _batch(job: JobObject, notes: Sequence[EventObject], failed: int) -> BatchObject:
    status, spec, result = _status(job), job.resolved_spec, job.result or {}
    metrics = result.get("metrics", {})
    ended = {f"{name}_at": job.finished_at if status == name else None for name in _ENDED}
    times = _times(notes)
    return BatchObject(
        id=job.id, endpoint=spec["endpoint"], model=spec["model"], errors=_errors(job, status, notes),
        input_file_id=spec["file"], status=status, output_file_id=result.get("output_file"),
        error_file_id=result.get("error_file"), created_at=job.created_at,
        expires_at=job.created_at + BATCH_MS // 1000, in_progress_at=times.get("in_progress"),
        finalizing_at=times.get("finalizing"), cancelling_at=times.get("cancelling"),
        request_counts=_counts(job, metrics, failed), usage=_usage(metrics), metadata=job.metadata or None, **ended,
    )  # fmt: skip


def _status(job: JobObject) -> Status:
    if job.status in ("succeeded", "failed", "cancelled"):
        return _ENDED[batch_status(job.status, None if job.error is None else job.error.model_dump())]
    if job.status == "cancelling":
        return "cancelling"
    stage = job.progress.stage if job.progress is not None else None
    if job.status == "queued" or stage in _BEFORE:
        return "validating"
    return "finalizing" if stage == "finalizing" else "in_progress"


def _times(notes: Sequence[EventObject]) -> dict[str, int]:
    """When the last attempt came to each stage."""
    found: dict[str, int] = {}
    for note in notes:
        stage = note.data.get("stage")
        if note.code == "cancelling":
            found["cancelling"] = note.created_at
        elif stage in _COMPUTING:
            found["in_progress"] = note.created_at
        elif stage == "finalizing":
            found["finalizing"] = note.created_at
    return found


def _errors(job: JobObject, status: Status, notes: Sequence[EventObject]) -> BatchErrors | None:
    if status != "failed" or job.error is None:
        return None
    told = [
        BatchError(code=note.code, line=note.data.get("line"), message=note.message, param=note.data.get("param"))
        for note in notes
        if note.type == "message" and note.level == "error"
    ]
    own = BatchError(code=job.error.code, line=None, message=job.error.message, param=job.error.param)
    return BatchErrors(data=told or [own])


def _counts(job: JobObject, metrics: Mapping[str, float], failed: int) -> RequestCounts:
    if metrics:
        return RequestCounts(**{name: int(metrics[f"batch/{name}"]) for name in ("total", "completed", "failed")})
    done = job.progress.step if job.progress is not None else 0
    total = (job.progress.total_steps if job.progress is not None else None) or 0
    return RequestCounts(total=total, completed=max(0, done - failed), failed=failed)


def _usage(metrics: Mapping[str, float]) -> BatchUsage | None:
    if not metrics:
        return None
    tokens = int(metrics["batch/tokens"])
    return BatchUsage(input_tokens=tokens, total_tokens=tokens)
