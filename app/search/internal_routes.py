"""The inference role's way to vectors: `GET /internal/v1/vectors/{job}/{path}`, opened by the worker token."""

from __future__ import annotations

from fastapi import Request, Response

from app.deps import ReadSessionDep, StoreDep
from app.downloads import Download, file_response
from app.edge import api_router
from app.internal.guard import WorkerOnly
from app.jobs import artifacts

router = api_router("worker", "/internal/v1")
router.dependencies.append(WorkerOnly)


@router.get("/vectors/{job_id}/{path}", response_class=Response)
def vectors_file(job_id: str, path: str, request: Request, session: ReadSessionDep, store: StoreDep) -> Response:
    """A file that an `embed` job left; Range works."""
    file = artifacts.embedding_file(session, job_id, path)
    session.close()
    return file_response(request, store, Download(file.key, file.size, file.sha256, path))
