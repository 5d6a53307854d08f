"""The worker's door (docs/contracts.md §5): claim with the worker's token, everything else with the ticket's."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request, Response

from app.deps import PlatformDep, SessionDep, SettingsDep, StoreDep
from app.downloads import file_response
from app.edge import api_router
from app.internal import files, schemas, tickets
from app.internal.guard import AttemptDep, JobId, TicketToken, Token, WorkerOnly
from app.jobs import artifacts, attempts, limits, reports
from app.jobs.turns import Wanted
from app.models import internal_routes as inference_models
from app.search import internal_routes as inference_vectors

router = api_router("worker", "/internal/v1")
RelativePath = Annotated[str, Path(max_length=400, description="as the ticket names it")]


@router.post(
    "/claim",
    response_model=schemas.Ticket,
    dependencies=[WorkerOnly],
    responses={204: {"description": "Nothing to claim."}},
)
def claim(body: schemas.ClaimRequest, session: SessionDep, settings: SettingsDep) -> Response | schemas.Ticket:
    """Take a queued job: one conditional update, a higher fence, a lease, and the ticket."""
    wanted = Wanted(body.job_id, body.queue, body.short)
    claimed = attempts.claim(session, wanted, body.worker.model_dump(), limits.of(settings))
    return Response(status_code=204) if claimed is None else tickets.ticket(session, claimed, settings)


@router.post("/jobs/{job_id}/heartbeat")
def heartbeat(
    body: schemas.FencedRequest, job_id: JobId, token: TicketToken, session: SessionDep, settings: SettingsDep
) -> schemas.HeartbeatReply:
    """Push the lease out; the reply carries a cancel or a pause."""
    command = attempts.heartbeat(session, job_id, attempts.hash_token(token), body.fence, limits.of(settings))
    return schemas.HeartbeatReply.model_validate({"command": command, "lease_seconds": settings.lease_seconds})


@router.post("/jobs/{job_id}/events")
def events(body: schemas.EventsRequest, attempt: AttemptDep, session: SessionDep) -> schemas.EventsReply:
    """A batch of the run's events, keyed (attempt, seq): repeats and shuffles change nothing."""
    return schemas.EventsReply(accepted_seq=reports.accept_events(session, attempt, body.fence, body.events))


@router.post("/jobs/{job_id}/logs")
def logs(body: schemas.LogRequest, attempt: AttemptDep, session: SessionDep) -> schemas.LogReply:
    """A piece of raw output; a repeated offset is ignored."""
    return schemas.LogReply(next_offset=reports.append_log(session, attempt, body.fence, body.offset, body.text))


@router.put("/jobs/{job_id}/files/{path:path}", status_code=201, responses={200: {"description": "Already here."}})
async def put_file(
    job_id: JobId, path: RelativePath, request: Request, response: Response, token: Token, platform: PlatformDep
) -> schemas.FileEntry:
    """Raw body with `X-Fence`, `X-Content-SHA256` and `Content-Length`; stored under the attempt."""
    file, new = await files.receive(request, platform, token, job_id, path)
    response.status_code = 201 if new else 200
    return schemas.FileEntry(**file._asdict())


@router.post("/jobs/{job_id}/checkpoints", status_code=201)
def checkpoints(
    body: schemas.CheckpointRequest, attempt: AttemptDep, session: SessionDep, store: StoreDep
) -> schemas.CheckpointReply:
    """Commit a checkpoint whose files are up; a repeat of a step is the same checkpoint."""
    found = {"step": body.step, "metrics": body.metrics, "files": files.claims(body.files)}
    return schemas.CheckpointReply(id=artifacts.commit_checkpoint(session, attempt, body.fence, found, store))


@router.post("/jobs/{job_id}/complete")
def complete(body: schemas.CompleteRequest, attempt: AttemptDep, session: SessionDep) -> schemas.StatusReply:
    """Commit the result whose files are up, and end the job."""
    outcome = {"files": files.claims(body.files), "metrics": body.metrics, "summary": body.summary}
    return schemas.StatusReply(status=artifacts.complete(session, attempt, body.fence, outcome))


@router.post("/jobs/{job_id}/fail")
def fail(
    body: schemas.FailRequest, attempt: AttemptDep, session: SessionDep, settings: SettingsDep
) -> schemas.StatusReply:
    """The run failed; class `infra` goes back into the queue within the budget."""
    error = body.error.model_dump(by_alias=True)
    return schemas.StatusReply(status=attempts.fail(session, attempt, body.fence, error, limits.of(settings)))


@router.post("/jobs/{job_id}/release")
def release(
    body: schemas.ReleaseRequest, attempt: AttemptDep, session: SessionDep, settings: SettingsDep
) -> schemas.StatusReply:
    """Let go of the job: back into the queue, paused or cancelled, as the job stands."""
    status = attempts.release(session, attempt, body.fence, body.reason, limits.of(settings))
    return schemas.StatusReply(status=status)


@router.get("/jobs/{job_id}/inputs/{input_id}/{path:path}", response_class=Response)
def input_file(
    input_id: str, path: RelativePath, attempt: AttemptDep, session: SessionDep, request: Request, store: StoreDep
) -> Response:
    """A file of an input; `Range` works."""
    file = files.named(attempts.input_files(session, attempt.job_id, input_id), path)
    session.commit()
    return file_response(request, store, file)


@router.get("/jobs/{job_id}/checkpoints/{checkpoint_id}/{path:path}", response_class=Response)
def checkpoint_file(
    checkpoint_id: str, path: RelativePath, attempt: AttemptDep, session: SessionDep, request: Request, store: StoreDep
) -> Response:
    """A file of a checkpoint; `Range` works."""
    file = files.named([artifacts.checkpoint_file(session, attempt.job_id, checkpoint_id, path)], path)
    session.commit()
    return file_response(request, store, file)


router.include_router(inference_models.router)
router.include_router(inference_vectors.router)
