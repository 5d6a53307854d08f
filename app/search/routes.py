"""`/v1/datasets/{id}/search`. Async, and no database session is held while vectors are searched (T14)."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import Path, Request, Response

from app.deps import PlatformDep, ReadKey
from app.edge import api_router, body_limit, changes_nothing
from app.errors import ApiError, Unprocessable
from app.inference.forward import InferenceClient, client_of
from app.search import service
from app.search.schemas import SearchRequest, SearchResults
from app.threads import in_thread

MAX_BODY_BYTES = 32 * 2**20

log = structlog.get_logger(__name__)
router = api_router("datasets")


@router.post("/datasets/{dataset_id}/search", response_model=SearchResults)
@body_limit(MAX_BODY_BYTES)
@changes_nothing
async def search_dataset(
    dataset_id: Annotated[str, Path(max_length=64, examples=["ds_01jd3w8m6k"])],
    body: SearchRequest,
    request: Request,
    key: ReadKey,
    platform: PlatformDep,
) -> Response:
    """The rows nearest to a text, a picture, a sound, a chain, a row or a vector, by cosine.

    Searched are the vectors of the newest `embed` job of the dataset that succeeded; 409 `not_embedded` where there is
    none. Every row is looked at, unless the job made an index (from `index_from` rows on); `exact` looks at all anyway.
    """
    found, query = await in_thread(service.look_up, platform, key.project_id, dataset_id, body)
    role = client_of(request.app)
    answer = await _searched(role, await in_thread(service.order, platform, found, query, body))
    rows = await in_thread(service.contents, platform, found, answer, body)
    previews = await _previewed(role, await in_thread(service.preview_order, found, rows))
    return Response(await in_thread(service.reply, found, answer, rows, previews), media_type="application/json")


async def _searched(role: InferenceClient, order: bytes) -> dict[str, Any]:
    try:
        return await role.post("/search", order)
    except Unprocessable as error:
        # The role knows the query as an item of a list.
        if error.param is not None and error.param.startswith(("input[0]", "query")):
            error.param = "query"
        raise


async def _previewed(role: InferenceClient, order: tuple[list[int], bytes] | None) -> dict[int, Any]:
    """What to show of the rows, by number; a search is worth its answer without."""
    if order is None:
        return {}
    try:
        made = await role.post("/preview", order[1])
    except ApiError as error:
        log.warning("previews_failed", code=error.code, message=error.message)
        return {}
    return dict(zip(order[0], made["previews"], strict=True))
