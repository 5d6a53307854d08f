"""Jobs, their diary and their checkpoints in OpenAI's words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.fine_tuning.results import result_id
from app.fine_tuning.schemas import (
    CheckpointMetrics,
    FineTuningCheckpoint,
    FineTuningEvent,
    FineTuningJob,
    Hyperparameters,
    Method,
    MethodType,
    Settings,
    Status,
)
from app.jobs import pages
from app.jobs.schemas import CheckpointObject, EventObject, JobObject
from app.pagination import Page
from ssl_core.estimates import tokens_per_sample
from ssl_core.spec import JOB_SPEC, DatasetFacts, FinetuneSpec, PretrainSpec

_STATUS: dict[str, Status] = {
    "queued": "queued", "running": "running", "pausing": "running", "cancelling": "running", "paused": "paused",
    "succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled",
}  # fmt: skip


def listed(session: Session, project_id: str, metadata: Mapping[str, str], page: Page) -> dict[str, Any]:
    """A page of the project's trainings."""
    found = pages.trained(session, project_id, metadata, page)
    return {**found, "data": shown(session, project_id, found["data"])}


def get(session: Session, project_id: str, job_id: str) -> FineTuningJob:
    """Raises NotFound."""
    return shown(session, project_id, [pages.one_trained(session, project_id, job_id)])[0]


def shown(session: Session, project_id: str, jobs: Sequence[JobObject]) -> list[FineTuningJob]:
    """Each in OpenAI's words."""
    ended = [str(job.resolved_spec["dataset"]) for job in jobs if job.status == "succeeded"]
    facts = datasets.facts_of(session, project_id, ended)
    return [_job(project_id, job, facts.get(job.resolved_spec["dataset"])) for job in jobs]


def events(session: Session, job_id: str, page: Page) -> dict[str, Any]:
    """A page of the diary."""
    found = pages.events(session, job_id, page)
    return {**found, "data": [_event(each) for each in found["data"]]}


def checkpoints(session: Session, job_id: str, page: Page) -> dict[str, Any]:
    """A page of what the job can resume from."""
    found = pages.checkpoints(session, job_id, page)
    return {**found, "data": [_checkpoint(job_id, each) for each in found["data"]]}


def _job(project_id: str, job: JobObject, facts: DatasetFacts | None) -> FineTuningJob:
    spec = job.resolved_spec
    numbers = Settings(hyperparameters=_hyperparameters(job))
    method: MethodType = "supervised" if job.type == "finetune" else "pretrain"
    eta = job.progress.eta_seconds if job.progress is not None and job.status == "running" else None
    succeeded = job.status == "succeeded"
    return FineTuningJob(
        id=job.id, created_at=job.created_at, finished_at=job.finished_at, status=_STATUS[job.status],
        estimated_finish=None if eta is None else int(time.time() + eta),
        model=spec.get("model") or (spec.get("backbone") or {}).get("name") or "auto",
        fine_tuned_model=(job.result or {}).get("model") if succeeded else None,
        organization_id=project_id, training_file=spec["dataset"], validation_file=spec.get("validation_dataset"),
        result_files=[result_id(job.id)] if succeeded else [], trained_tokens=_tokens(job, facts), error=job.error,
        hyperparameters=numbers.hyperparameters, seed=spec["seed"], metadata=job.metadata,
        method=Method.model_validate({"type": method, method: numbers}),
    )  # fmt: skip


def _hyperparameters(job: JobObject) -> Hyperparameters:
    spec = job.resolved_spec
    epochs = (spec.get("budget") or {}).get("epochs")
    own_rate = (job.spec.get("optimizer") or {}).get("learning_rate") is not None
    times = _sent(job.spec, "learning_rate_multiplier")
    return Hyperparameters(
        n_epochs=int(epochs) if epochs is not None and float(epochs).is_integer() else epochs,
        batch_size=spec.get("batch_size"),
        learning_rate_multiplier=None if own_rate else times if isinstance(times, float | int) else 1.0,
    )


def _sent(body: Mapping[str, Any], name: str) -> Any:
    """A hyperparameter as the request had it, in either of its places; None for a job made at the other door."""
    method = body.get("method") or {}
    places = [body.get("hyperparameters"), (method.get(method.get("type")) or {}).get("hyperparameters")]
    return next((place[name] for place in places if place and name in place), None)


def _tokens(job: JobObject, facts: DatasetFacts | None) -> int | None:
    """Steps times samples times the mean tokens of one; None for data without tokens, or while nothing has ended."""
    steps = job.progress.step if job.progress is not None else 0
    if facts is None or not steps:
        return None
    try:
        spec = JOB_SPEC.validate_python(job.resolved_spec, strict=False)
    except ValidationError:  # a row that an older version wrote
        return None
    if not isinstance(spec, PretrainSpec | FinetuneSpec) or spec.modality is None or spec.batch_size is None:
        return None
    if not spec.modality.has_lengths:
        return None
    views = spec.objective.views if isinstance(spec, PretrainSpec) else spec.task.training_views(spec.modality)
    return round(steps * spec.batch_size * tokens_per_sample(facts, spec.modality, views))


def _event(event: EventObject) -> FineTuningEvent:
    level = "warn" if event.level == "warning" else event.level
    return FineTuningEvent(
        id=event.id, created_at=event.created_at, level=level, message=event.message,
        data={**event.data, "code": event.code},
    )  # fmt: skip


def _checkpoint(job_id: str, row: CheckpointObject) -> FineTuningCheckpoint:
    losses = {name: row.metrics.get(f"{part}/loss") for name, part in (("train", "train"), ("valid", "validation"))}
    told = {f"{name}_loss": value if isinstance(value, float | int) else None for name, value in losses.items()}
    return FineTuningCheckpoint(
        id=row.id, created_at=row.created_at, fine_tuning_job_id=job_id, fine_tuned_model_checkpoint=row.id,
        step_number=row.step, metrics=CheckpointMetrics(step=row.step, **told),
    )  # fmt: skip
