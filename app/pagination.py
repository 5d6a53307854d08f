"""Keyset lists: newest first by sortable id, never OFFSET (R32)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import Select
from sqlalchemy.orm import Session

from app.errors import ApiError

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None
    order: Literal["asc", "desc"]


class Listing(BaseModel, Generic[T]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = Field(description="whether another page follows; ask with `after=last_id`")
    first_id: str | None
    last_id: str | None


async def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="1 to 100")] = 20,
    after: Annotated[str | None, Query(max_length=64, description="id of the last item of the page before")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="`desc`: newest first")] = "desc",
) -> Page:
    return Page(limit, after, order)


PageDep = Annotated[Page, Depends(_page)]


async def _first(
    limit: Annotated[int | None, Query(ge=1, le=100, description="1 to 100; up to 1,000 where it is left out")] = None,
    after: Annotated[str | None, Query(max_length=64, description="id of the last item of the page before")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="`desc`: newest first")] = "desc",
) -> Page:
    return Page(1000 if limit is None else limit, after, order)


LargePageDep = Annotated[Page, Depends(_first)]
"""Of a list that OpenAI's clients take for whole: they ask for no second page."""


def paginate(
    session: Session,
    query: Select[Any],
    model: Any,
    page: Page,
    render: Callable[[Any], Any] = lambda row: row,
) -> dict[str, Any]:
    """One page of `query` over the rows of `model`, keyed by `model.id`.

    `query` holds the tenant's and the caller's filters; a cursor that is not one of its rows raises 400
    `invalid_cursor`. `render` turns a row into its API shape.
    """
    if page.after is not None:
        known = session.scalar(query.with_only_columns(model.id).where(model.id == page.after))
        if known is None:
            raise ApiError("invalid_cursor", "`after` is not the id of an item of this list.", "after")
        query = query.where(model.id < page.after if page.order == "desc" else model.id > page.after)
    order = model.id.desc() if page.order == "desc" else model.id.asc()
    rows = session.scalars(query.order_by(None).order_by(order).limit(page.limit + 1)).all()
    shown = rows[: page.limit]
    return {
        "object": "list",
        "data": [render(row) for row in shown],
        "has_more": len(rows) > page.limit,
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
    }
