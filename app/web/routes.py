"""Everything below `/ui`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.deps import ReadKey
from app.errors import NotFound
from app.web import datasets, entry, forms, jobs, measures, models, overview, settings
from app.web.edge import HOME, page_router

router = APIRouter(include_in_schema=False)
_last = page_router()


@_last.get("/{path:path}")
async def nothing_here(path: str, request: Request, key: ReadKey) -> Response:
    """Every other address."""
    raise NotFound("page", f"{HOME}/{path[:200]}", None)


for each in (entry, overview, datasets, jobs, forms, models, measures, settings):
    router.include_router(each.router)
router.include_router(_last)
