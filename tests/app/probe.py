"""A few routes for tests of the edge: nested fields, writes that can fail, a stream, a fault."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from app.auth.tables import Project
from app.db import after_commit, now_ms
from app.deps import PlatformDep, ReadKey, ReadSessionDep, SessionDep, WriteKey
from app.edge import api_router, kept_reply
from app.ids import new_id
from app.platform import session_scope
from ssl_core.values import Value

router = api_router("probe")
rung: list[str] = []


class Circle(Value):
    kind: Literal["circle"] = "circle"
    radius: float = Field(gt=0, lt=100)


class Square(Value):
    kind: Literal["square"] = "square"
    side: int = Field(ge=1, le=10)


class Drawing(Value):
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    title: str = ""
    count: int = 1
    tags: list[str] = []


@router.post("/draw")
def draw(body: Drawing, key: WriteKey) -> dict[str, Any]:
    return body.model_dump()


@router.post("/named")
def named(body: dict[str, Any], key: WriteKey, session: SessionDep) -> dict[str, str]:
    row = Project(id=body.get("id") or new_id("proj"), name=str(body["name"]), created_ms=now_ms(session))
    session.add(row)
    after_commit(session, lambda: rung.append(row.id))
    return {"id": row.id, "name": row.name}


@router.get("/named")
def named_list(key: ReadKey, session: ReadSessionDep) -> dict[str, int]:
    return {"count": session.query(Project).count()}


@router.post("/streamed")
async def streamed(request: Request, key: WriteKey, platform: PlatformDep) -> Any:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)

    def finish() -> Any:
        with session_scope(platform) as session:
            row = Project(id=new_id("proj"), name=f"{size} bytes", created_ms=now_ms(session))
            session.add(row)
            return kept_reply(request, session, 201, {"id": row.id, "size": size})

    return await run_in_threadpool(finish)


@router.post("/fault")
def fault(key: WriteKey) -> None:
    raise RuntimeError("a secret detail of the server")
