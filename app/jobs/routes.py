"""`/v1/jobs`: create, look at, steer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Depends, Path, Request, Response
from fastapi.openapi.models import Example

from app.deps import PageDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep, WriteKey
from app.edge import api_router, changes_nothing, resent, takes_metadata
from app.jobs import control, detail_routes, limits, reading, service, submission
from app.jobs.schemas import EstimateObject, JobDetail, JobList, JobObject, as_detail, as_job
from app.jobs.tables import Job
from app.pagination import paginate
from ssl_core.spec import TrainSpec, UserJobSpec

router = api_router("jobs")
JobId = Annotated[str, Path(max_length=64, examples=["job_01jd3w9aaa"])]
_DESCRIPTION = "What to train, on what. Everything left out has a default; the reply shows every number."
_TRAINING: dict[str, Example] = {
    "pretrain": {
        "summary": "Pretrain a text encoder",
        "value": {"type": "pretrain", "dataset": "ds_01jd3w8m6k", "objective": {"name": "mlm"}},
    },
    "finetune": {
        "summary": "Fine-tune it on a few labels",
        "value": {
            "type": "finetune",
            "dataset": "ds_01jd3w8zzz",
            "model": "mdl_01jd3w9qz2",
            "task": {"name": "classification"},
        },
    },
}
_OTHERS: dict[str, Example] = {
    "evaluate": {
        "summary": "Score a fine-tuned model on labelled rows",
        "value": {"type": "evaluate", "model": "mdl_01jd3w9qz2", "dataset": "ds_01jd3w8zzz"},
    },
    "predict": {
        "summary": "Ask a fine-tuned model about every row of a dataset",
        "value": {"type": "predict", "model": "mdl_01jd3w9qz2", "dataset": "ds_01jd3w8m6k"},
    },
    "embed": {
        "summary": "A vector for every row of a dataset",
        "value": {"type": "embed", "model": "mdl_01jd3w9qz2", "dataset": "ds_01jd3w8m6k"},
    },
    "label_efficiency": {
        "summary": "Show how many labels the pretraining saves",
        "value": {
            "type": "label_efficiency",
            "model": "mdl_01jd3w9qz2",
            "dataset": "ds_01jd3w8zzz",
            "test_dataset": "ds_01jd3w8yyy",
            "labels": [5, 10, 30, 100],
        },
    },
    "export": {
        "summary": "Write a model as a transformers folder, to download",
        "value": {"type": "export", "model": "mdl_01jd3w9qz2", "format": "hf"},
    },
}
Spec = Annotated[UserJobSpec, Body(description=_DESCRIPTION, openapi_examples=_TRAINING | _OTHERS)]
Training = Annotated[TrainSpec, Body(description=_DESCRIPTION, openapi_examples=_TRAINING)]


@router.post("/jobs", status_code=201)
def create_job(spec: Spec, request: Request, key: WriteKey, session: SessionDep, settings: SettingsDep) -> JobDetail:
    """Start a job. A body that a client re-sends on its own (`x-stainless-retry-count`) yields the same job."""
    sent = submission.Sent(request.state.body, resent(request))
    job = submission.create(session, settings, key.project_id, spec, sent)
    return as_detail(job, reading.attempts(session, job))


@router.post("/jobs/estimate")
@changes_nothing
def estimate_job(spec: Training, key: WriteKey, session: SessionDep, settings: SettingsDep) -> EstimateObject:
    """What a job would cost, without making it: steps, parameters, memory, and the resolved spec."""
    plan, found = submission.predict(session, settings, key.project_id, spec)
    return EstimateObject(resolved_spec=plan.spec.model_dump(mode="json"), **found.model_dump())


@router.get("/jobs", response_model=JobList)
@takes_metadata
def list_jobs(
    request: Request,
    key: ReadKey,
    session: ReadSessionDep,
    page: PageDep,
    wanted: Annotated[reading.JobFilter, Depends()],
) -> dict[str, Any]:
    """The project's jobs, newest first; `metadata[key]=value` filters by metadata."""
    query = reading.jobs(key.project_id, wanted)
    query = reading.with_metadata(session, query, reading.metadata_filter(request.query_params))
    return paginate(session, query, Job, page, as_job)


@router.get(
    "/jobs/{job_id}", response_model=JobDetail, responses={304: {"description": "Unchanged since `If-None-Match`."}}
)
def get_job(job_id: JobId, request: Request, key: ReadKey, session: ReadSessionDep) -> Response:
    """One job. Send the `ETag` back as `If-None-Match`: an unchanged job answers 304."""
    known = request.headers.get("if-none-match")
    if known is not None and known == reading.revision(session, key.project_id, job_id):
        return Response(status_code=304, headers={"ETag": known})
    job = service.get(session, key.project_id, job_id)
    detail = as_detail(job, reading.attempts(session, job))
    tag = {"ETag": reading.tag_of(job.revision)}
    return Response(detail.model_dump_json(), headers=tag, media_type="application/json")


@router.post("/jobs/{job_id}/cancel", status_code=202)
def cancel_job(job_id: JobId, key: WriteKey, session: SessionDep, settings: SettingsDep) -> JobObject:
    """End a job. The intent is durable at once; the worker saves what it has and lets go. Again is a no-op."""
    return as_job(control.cancel(session, key.project_id, job_id, limits.of(settings)))


@router.post("/jobs/{job_id}/pause", status_code=202)
def pause_job(job_id: JobId, key: WriteKey, session: SessionDep) -> JobObject:
    """Stop a job and keep its last checkpoint. Again is a no-op."""
    return as_job(control.pause(session, key.project_id, job_id))


@router.post("/jobs/{job_id}/resume", status_code=202)
def resume_job(job_id: JobId, key: WriteKey, session: SessionDep) -> JobObject:
    """Queue a paused job again; it goes on from its last checkpoint."""
    return as_job(control.resume(session, key.project_id, job_id))


router.include_router(detail_routes.router)
