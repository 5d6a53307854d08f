"""The form for a new job: drawn in the browser from the JSON schemas of the specs and from the catalogue."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import TypeAdapter

from app.deps import ReadKey, ReadSessionDep
from app.jobs import service
from app.web.edge import page, page_router
from app.web.rows import TYPES
from ssl_core.spec import UserJobSpec

router = page_router()


@router.get("/new-job")
def new_job_page(
    request: Request,
    key: ReadKey,
    session: ReadSessionDep,
    origin: Annotated[str, Query(alias="from", max_length=64, description="a job to begin with")] = "",
) -> Response:
    """An empty form, or one that holds the spec of another job; `type`, `dataset` and `model` may be given too."""
    spec: dict[str, Any] = service.get(session, key.project_id, origin).spec if origin else {}
    given = {name: value for name, value in request.query_params.items() if name in ("type", "dataset", "model")}
    kinds = {name: words for name, words in TYPES.items() if name in schema()["discriminator"]["mapping"]}
    return page(request, "new_job.html", title="New job", spec=spec | given, kinds=kinds)


@router.get("/job-schema.json")
async def job_schema(request: Request, key: ReadKey) -> Response:
    """The JSON schema of what `POST /v1/jobs` takes."""
    body = _body()
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@cache
def schema() -> dict[str, Any]:
    """As pydantic tells it: a union on `type`."""
    return TypeAdapter(UserJobSpec).json_schema()


@cache
def _body() -> bytes:
    return json.dumps(schema(), separators=(",", ":")).encode()
