"""`/v1/fine_tuning/jobs`: trainings for programs written for the OpenAI API. The same jobs as `/v1/jobs`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Depends, Path, Request
from fastapi.openapi.models import Example

from app.deps import PageDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep, WriteKey
from app.edge import api_router, resent, takes_metadata
from app.fine_tuning import service, submission
from app.fine_tuning.schemas import (
    FineTuningCheckpointList,
    FineTuningCreate,
    FineTuningEventList,
    FineTuningJob,
    FineTuningJobList,
)
from app.jobs import control, limits, pages, reading
from app.jobs.schemas import JobObject
from app.jobs.submission import Sent
from ssl_core.spec import FinetuneSpec, PretrainSpec

router = api_router("fine_tuning")
JobId = Annotated[str, Path(max_length=64, examples=["job_01jd3w9aaa"])]
_EXAMPLES: dict[str, Example] = {
    "supervised": {
        "summary": "Fine-tune a model on labels",
        "value": {
            "model": "mdl_01jd3w9qz2",
            "training_file": "ds_01jd3w8zzz",
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
            "task": {"name": "classification"},
        },
    },
    "pretrain": {
        "summary": "Pretrain from scratch",
        "value": {
            "model": "auto",
            "training_file": "ds_01jd3w8m6k",
            "method": {"type": "pretrain"},
            "objective": {"name": "mlm"},
            "budget": {"minutes": 10},
        },
    },
}
_OWN = {
    name: {"$ref": f"#/components/schemas/{spec.__name__}/properties/{name}"}
    for spec in (PretrainSpec, FinetuneSpec)
    for name in spec.model_fields
    if name not in FineTuningCreate.model_fields and name not in ("type", "dataset", "validation_dataset")
}
_WHOLE = {"requestBody": {"content": {"application/json": {"schema": {"properties": _OWN}}}}}
Wanted = Annotated[
    FineTuningCreate, Body(description="OpenAI's fields, and ours beside them.", openapi_examples=_EXAMPLES)
]


def own_training(job_id: JobId, key: ReadKey, session: ReadSessionDep) -> JobObject:
    """The training of the path, if it is of the caller's project. Raises NotFound."""
    return pages.one_trained(session, key.project_id, job_id)


OwnTraining = Annotated[JobObject, Depends(own_training)]


@router.post("/fine_tuning/jobs", openapi_extra=_WHOLE)
def create_fine_tuning_job(
    body: Wanted, request: Request, key: WriteKey, session: SessionDep, settings: SettingsDep
) -> FineTuningJob:
    """Start a training. `supervised` is a job of type `finetune`, `pretrain` one of type `pretrain`.

    Fields of `POST /v1/jobs` that OpenAI does not have (`task`, `objective`, `budget`, …) go beside the others: in
    the Python client through `extra_body`. A supervised job without a `task` learns `classification`.
    """
    sent = Sent(request.state.body, resent(request))
    job = submission.create(session, settings, key.project_id, body, sent)
    return service.shown(session, key.project_id, [job])[0]


@router.get("/fine_tuning/jobs", response_model=FineTuningJobList)
@takes_metadata
def list_fine_tuning_jobs(request: Request, key: ReadKey, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """The project's trainings, newest first; `metadata[key]=value` filters by metadata."""
    return service.listed(session, key.project_id, reading.metadata_filter(request.query_params), page)


@router.get("/fine_tuning/jobs/{job_id}")
def get_fine_tuning_job(job_id: JobId, key: ReadKey, session: ReadSessionDep) -> FineTuningJob:
    """One training."""
    return service.get(session, key.project_id, job_id)


@router.post("/fine_tuning/jobs/{job_id}/cancel")
def cancel_fine_tuning_job(job_id: JobId, key: WriteKey, session: SessionDep, settings: SettingsDep) -> FineTuningJob:
    """End it. It is `running` until its worker has let go. Again is a no-op."""
    pages.one_trained(session, key.project_id, job_id)
    control.cancel(session, key.project_id, job_id, limits.of(settings))
    return service.get(session, key.project_id, job_id)


@router.post("/fine_tuning/jobs/{job_id}/pause")
def pause_fine_tuning_job(job_id: JobId, key: WriteKey, session: SessionDep) -> FineTuningJob:
    """Stop it and keep its last checkpoint. It is `running` until its worker has let go. Again is a no-op."""
    pages.one_trained(session, key.project_id, job_id)
    control.pause(session, key.project_id, job_id)
    return service.get(session, key.project_id, job_id)


@router.post("/fine_tuning/jobs/{job_id}/resume")
def resume_fine_tuning_job(job_id: JobId, key: WriteKey, session: SessionDep) -> FineTuningJob:
    """Queue a paused training again; it goes on from its last checkpoint."""
    pages.one_trained(session, key.project_id, job_id)
    control.resume(session, key.project_id, job_id)
    return service.get(session, key.project_id, job_id)


@router.get("/fine_tuning/jobs/{job_id}/events", response_model=FineTuningEventList)
def fine_tuning_events(job: OwnTraining, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """The training's diary, newest first."""
    return service.events(session, job.id, page)


@router.get("/fine_tuning/jobs/{job_id}/checkpoints", response_model=FineTuningCheckpointList)
def fine_tuning_checkpoints(job: OwnTraining, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """What the training can resume from, newest first."""
    return service.checkpoints(session, job.id, page)
