"""`/v1/jobs/{id}/…`: what a run tells."""

from __future__ import annotations

import mimetypes
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse

from app.deps import PageDep, PlatformDep, ReadKey, ReadSessionDep, StoreDep
from app.downloads import Download, file_response
from app.edge import api_router
from app.jobs import artifacts, points, reading, service, stream
from app.jobs.schemas import (
    CheckpointList,
    EventList,
    JobFileList,
    LogsObject,
    MetricsObject,
    SampleList,
    SeriesObject,
    as_checkpoint,
    as_event,
    as_file,
    as_sample,
)
from app.jobs.tables import Checkpoint, Job, JobEvent, Sample
from app.live import LiveResponse
from app.pagination import paginate
from app.threads import in_thread

router = api_router("jobs")


def own_job(
    job_id: Annotated[str, Path(max_length=64, examples=["job_01jd3w9aaa"])], key: ReadKey, session: ReadSessionDep
) -> Job:
    """The job of the path, if it is of the caller's project. Raises NotFound."""
    return service.get(session, key.project_id, job_id)


OwnJob = Annotated[Job, Depends(own_job)]
_STREAM = {
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
    "description": "A page, or the live stream.",
}


@router.get("/jobs/{job_id}/events", response_model=EventList, responses={200: _STREAM})
async def job_events(
    job: OwnJob,
    request: Request,
    session: ReadSessionDep,
    platform: PlatformDep,
    page: PageDep,
    last_event_id: Annotated[str | None, Header(max_length=64, description="live: go on after this event")] = None,
) -> Any:
    """The job's diary: state changes, messages, checkpoints, samples.

    With `Accept: text/event-stream` it is live: events `job.event` (with an id for `Last-Event-ID`), `progress`
    between them, and `done` once the job has ended, after which the stream closes.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        after = reading.event_position(job.id, last_event_id or page.after)
        return LiveResponse(partial(stream.follow, platform, job.id, after))
    return await in_thread(paginate, session, reading.events(job.id), JobEvent, page, as_event)


@router.get("/jobs/{job_id}/metrics", response_model=MetricsObject, responses={200: {"content": {"text/csv": {}}}})
def job_metrics(
    job: OwnJob,
    session: ReadSessionDep,
    series: Annotated[list[str] | None, Query(max_length=100, description="only these series")] = None,
    points_each: Annotated[
        int | None, Query(alias="points", ge=1, le=100_000, description="thin each series to this many points")
    ] = None,
    format: Annotated[Literal["json", "csv"], Query(description="`csv`: series,step,value")] = "json",
) -> Any:
    """The job's curves. A point that a later attempt measured again is there once, with the later value."""
    found = points.read(session, job.id, series, points_each)
    if format == "csv":
        return PlainTextResponse(points.as_csv(found), media_type="text/csv")
    listed = [
        SeriesObject(name=name, steps=[each.step for each in readings], values=[each.shown for each in readings])
        for name, readings in found.items()
    ]
    return MetricsObject(job_id=job.id, series=listed)


@router.get("/jobs/{job_id}/checkpoints", response_model=CheckpointList)
def job_checkpoints(job: OwnJob, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """The checkpoints that the job can resume from, newest first."""
    return paginate(session, reading.checkpoints(job.id), Checkpoint, page, as_checkpoint)


@router.get("/jobs/{job_id}/samples", response_model=SampleList)
def job_samples(job: OwnJob, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """Pictures and texts that the run made to be looked at."""
    return paginate(session, reading.samples(job.id), Sample, page, as_sample)


@router.get(
    "/jobs/{job_id}/samples/{sample_id}/content",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The file."}},
)
def sample_content(
    job: OwnJob,
    sample_id: Annotated[str, Path(max_length=64)],
    session: ReadSessionDep,
    request: Request,
    store: StoreDep,
) -> Response:
    """The file of a sample."""
    sample, file = artifacts.sample_file(session, job.id, sample_id)
    session.close()
    name = file.path.rpartition("/")[2]
    return file_response(request, store, Download(file.key, file.size, file.sha256, name, sample.media_type))


@router.get("/jobs/{job_id}/files", response_model=JobFileList)
def job_files(job: OwnJob, session: ReadSessionDep) -> dict[str, Any]:
    """The files of the job's result: a report, the scores, predictions. Empty until it has succeeded."""
    return {"data": [as_file(job.id, row) for row in artifacts.result_files(session, job)]}


@router.get(
    "/jobs/{job_id}/files/{path:path}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The file."}},
)
def job_file(
    job: OwnJob,
    path: Annotated[str, Path(max_length=400, examples=["report.html"])],
    session: ReadSessionDep,
    request: Request,
    store: StoreDep,
) -> Response:
    """One file of the job's result, to download: `ETag` is its sha256, one `Range` is served."""
    file = artifacts.result_file(session, job, path)
    session.close()
    name = path.rpartition("/")[2]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return file_response(request, store, Download(file.key, file.size, file.sha256, name, kind))


@router.get("/jobs/{job_id}/logs")
def job_logs(
    job: OwnJob,
    session: ReadSessionDep,
    attempt: Annotated[int | None, Query(ge=1, lt=2**31, description="default: the newest")] = None,
    offset: Annotated[int, Query(ge=0, lt=2**53, description="`next_offset` of the piece before")] = 0,
) -> LogsObject:
    """The raw output of an attempt, a piece at a time."""
    number, following, text = reading.log_piece(session, job, attempt, offset)
    return LogsObject(job_id=job.id, attempt=number, offset=offset, next_offset=following, text=text)
