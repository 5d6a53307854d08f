"""The inference role's view of models: `GET /internal/v1/models/{id}` and its files, opened by the worker token."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from app.deps import ReadSessionDep, StoreDep
from app.downloads import Download, file_response
from app.edge import api_router
from app.internal.guard import WorkerOnly
from app.models import service

router = api_router("worker", "/internal/v1")
router.dependencies.append(WorkerOnly)


@router.get("/models/{model_id}")
def model_listing(model_id: str, session: ReadSessionDep) -> dict[str, Any]:
    """The model's digest, its config and where to fetch its files."""
    digest, files = service.digest_and_files(session, model_id)
    listed = [
        {
            "path": file["path"], "size": file["size"], "sha256": file["sha256"],
            "url": f"/internal/v1/models/{model_id}/files/{file['path']}",
        }
        for file in files
    ]  # fmt: skip
    return {"id": model_id, "digest": digest, "config": service.config_of(session, model_id), "files": listed}


@router.get("/models/{model_id}/files/{path:path}", response_class=Response)
def model_file(model_id: str, path: str, request: Request, session: ReadSessionDep, store: StoreDep) -> Response:
    """One file's bytes; Range works."""
    file = service.file_at(session, model_id, path)
    session.close()
    return file_response(request, store, Download(file["key"], file["size"], file["sha256"], path.rsplit("/", 1)[-1]))
