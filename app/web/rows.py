"""What tables and pages show of jobs: a title, a line of its loss, the names of what it reads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.jobs import points
from app.jobs.schemas import JobObject, as_job
from app.models import service as models

TYPES = {
    "pretrain": "Pretraining",
    "finetune": "Fine-tuning",
    "evaluate": "Evaluation",
    "predict": "Predictions",
    "embed": "Embeddings",
    "batch": "Batch of requests",
    "label_efficiency": "Label efficiency",
    "import": "Import",
    "export": "Export",
    "ingest": "Ingest",
    "baseline": "Classical baseline",
    "report": "Report",
}
LOSS = ("train/loss", "validation/loss")
_WIDTH, _HEIGHT, _POINTS = 100, 24, 50
_MANY_POINTS = 200_000
_REFS = ("dataset", "test_dataset", "validation_dataset", "training_dataset", "pool", "model", "public_model")


@dataclass(frozen=True)
class JobRow:
    """One job in a table."""

    job: JobObject
    title: str
    line: str
    """Points of an SVG polyline 100 wide and 24 high; empty where there is no curve."""
    dataset: str | None
    """Name of the dataset, or its id where it is gone."""


def job_rows(session: Session, project_id: str, jobs: Iterable[Any]) -> list[JobRow]:
    """Rows of these jobs, as the service found them."""
    found = [(as_job(job), job.points) for job in jobs]
    named = names(session, project_id, [job.resolved_spec for job, _ in found])
    rows = []
    for job, count in found:
        dataset = job.resolved_spec.get("dataset")
        line = sparkline(session, job.id) if 0 < count <= _MANY_POINTS else ""
        rows.append(JobRow(job, title(job), line, named.get(dataset or "", dataset)))
    return rows


def title(job: JobObject) -> str:
    """`Pretraining · mlm`."""
    spec = job.resolved_spec
    part = spec.get("objective") or spec.get("task") or {}
    more = part.get("name") or spec.get("format") or ""
    words = TYPES.get(job.type, job.type)
    return f"{words} · {more}" if more else words


def sparkline(session: Session, job_id: str) -> str:
    """The job's training loss as the points of a polyline; empty where there are fewer than two."""
    readings = points.read(session, job_id, LOSS[:1], _POINTS)[LOSS[0]]
    values = [(each.step, each.value) for each in readings if each.value is not None and math.isfinite(each.value)]
    if len(values) < 2:
        return ""
    first, last = values[0][0], values[-1][0]
    low, high = min(value for _, value in values), max(value for _, value in values)
    across, tall = max(1, last - first), (high - low) or 1.0
    inside = _HEIGHT - 4
    return " ".join(
        f"{(step - first) / across * _WIDTH:.1f},{2 + (high - value) / tall * inside:.1f}" for step, value in values
    )


def names(session: Session, project_id: str, specs: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Names of the datasets and models that these specs refer to, by id; what is gone is left out."""
    ids = {str(spec[ref]) for spec in specs for ref in _REFS if spec.get(ref)}
    found = by_id(session, datasets.of_project(project_id), {each for each in ids if each.startswith("ds_")})
    found |= by_id(session, models.of_project(project_id), {each for each in ids if each.startswith("mdl_")})
    return {key: row.name for key, row in found.items()}


def by_id(session: Session, query: Select[Any], ids: set[str]) -> dict[str, Any]:
    """Those rows of a service's query that have these ids."""
    if not ids:
        return {}
    entity = query.column_descriptions[0]["entity"]
    return {row.id: row for row in session.scalars(query.where(entity.id.in_(ids)))}
