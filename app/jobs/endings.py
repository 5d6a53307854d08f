"""What other domains hear about a job: that an ingest began, what a success delivers, how an ingest ended otherwise.

Called inside the transaction that moves the job, so that a job and its dataset or model can never disagree.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets import plain
from app.datasets import service as datasets
from app.jobs.states import Status
from app.jobs.tables import Job, JobInput
from app.models import service as models
from app.models.service import StoredFile
from app.webhooks import service as webhooks

EXPIRED = "batch_expired"
"""Code of the error of a batch that did not end within its window."""
_MEASURED = ("evaluate", "predict", "embed", "baseline", "report")
"""Jobs whose result is numbers and files to download, not a model."""


def begin(session: Session, job: Job) -> None:
    """An attempt starts."""
    if job.type == "ingest":
        datasets.begin_ingest(session, job.resolved_spec["dataset"])


def deliver(
    session: Session, job: Job, files: list[StoredFile], metrics: dict[str, Any], summary: dict[str, Any]
) -> dict[str, Any]:
    """Commit what a success made, and return the job's `result`. Raises Unprocessable where the summary is unfit."""
    if job.type == "ingest":
        dataset = job.resolved_spec["dataset"]
        datasets.finish_ingest(session, dataset, files, summary)
        return {"dataset": dataset, "metrics": metrics}
    if job.type == "export":
        spec = job.resolved_spec
        models.add_export(session, spec["model"], spec["format"], files)
        return {"model": spec["model"], "format": spec["format"], "metrics": metrics}
    if job.type == "batch":
        return {"metrics": metrics, **_outputs(session, job, files)}
    if job.type in _MEASURED or job.resolved_spec.get("keep_model") is False:
        return {"metrics": metrics, "files": sorted(file["path"] for file in files if file["path"] != "manifest.json")}
    inputs = session.scalars(select(JobInput).where(JobInput.job_id == job.id).order_by(JobInput.role))
    refs = [{"id": ref.ref_id, "role": ref.role, "digest": ref.digest} for ref in inputs]
    lineage = {
        "datasets": [ref for ref in refs if ref["role"] not in ("model", "upload")],
        "base_model": job.resolved_spec.get("model"),
        "spec": job.resolved_spec,
    }
    model = models.create_from_job(
        session, project_id=job.project_id, job_id=job.id, name=_name(job), files=files, summary=summary,
        metrics=metrics, lineage=lineage,
    )  # fmt: skip
    return {"model": model, "metrics": metrics}


def _outputs(session: Session, job: Job, files: list[StoredFile]) -> dict[str, str | None]:
    """What a batch has written becomes files of the project."""
    named = {"output.jsonl": "output_file", "errors.jsonl": "error_file"}
    made = [file for file in files if file["path"] in named]
    about = [
        plain.Output(f"{job.id}_{file['path']}", file["key"], file["size"], file["sha256"]) for file in made
    ]  # fmt: skip
    ids = plain.keep(session, job.project_id, "batch_output", about)
    found = {named[file["path"]]: id for file, id in zip(made, ids, strict=True)}
    return {name: found.get(name) for name in named.values()}


def settle(session: Session, job: Job) -> None:
    """The job has ended."""
    if job.type != "ingest" and job.parent_id is None:
        _tell(session, job)
    if job.type == "ingest" and job.status != Status.SUCCEEDED:
        error = job.error or {"code": "cancelled", "message": "The ingest was cancelled.", "param": None}
        datasets.fail_ingest(session, job.resolved_spec["dataset"], error)


def batch_status(status: str, error: dict[str, Any] | None) -> str:
    """How a batch that has ended is called at OpenAI's door: `completed`, `failed`, `expired` or `cancelled`."""
    if status == Status.FAILED and error is not None and error.get("code") == EXPIRED:
        return "expired"
    return "completed" if status == Status.SUCCEEDED else status


def _tell(session: Session, job: Job) -> None:
    """Jobs that the platform made for itself, ingests and parts of others, are told of by what they are for."""
    webhooks.publish(session, job.project_id, f"job.{job.status}", {"id": job.id})
    if job.type in webhooks.TRAINING:
        webhooks.publish(session, job.project_id, f"fine_tuning.job.{job.status}", {"id": job.id})
    if job.type == "batch":
        webhooks.publish(session, job.project_id, f"batch.{batch_status(job.status, job.error)}", {"id": job.id})


def _name(job: Job) -> str:
    """As an import says, else `<backbone>-<objective or task>[-<suffix>]`."""
    spec = job.resolved_spec
    if job.type == "import":
        return str(spec.get("name") or (spec.get("hub") or {}).get("repository") or spec["filename"])
    what = (spec.get("objective") or spec.get("task") or {}).get("name", job.type)
    shape = (spec.get("backbone") or {}).get("name")
    return "-".join(part for part in (shape, what, spec.get("suffix")) if part)
