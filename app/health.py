"""Alive, ready, and measured: outside `/v1`, without a key (R34)."""

from __future__ import annotations

import socket
import time
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel
from sqlalchemy import BigInteger, String
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from app.datasets.measures import gather as measure_datasets
from app.db import Base, now_ms
from app.deps import PlatformDep
from app.errors import Unavailable
from app.jobs.measures import gather as measure_jobs
from app.platform import Platform, read_scope, session_scope
from app.responses import ErrorReply
from app.telemetry import exposition

log = structlog.get_logger(__name__)
router = APIRouter(tags=["operations"])


class Heartbeat(Base):
    """One row that a readiness check writes: reading alone would call a full disk ready."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    beat_ms: Mapped[int] = mapped_column(BigInteger)


class Part(BaseModel):
    """One thing the API leans on."""

    status: Literal["ok", "degraded", "failed"]
    detail: str | None = None
    milliseconds: float


class Readiness(BaseModel):
    """`ready` as long as requests can be answered; a broker that is down only degrades (R1)."""

    status: Literal["ready", "not_ready"]
    parts: dict[str, Part]


class NotReady(Readiness, ErrorReply):
    """The error envelope, with the parts beside it."""


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


@router.get("/", include_in_schema=False)
async def root(request: Request) -> Any:
    """For whoever opens the address: browsers go on to the dashboard."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/ui", 303)
    return {"name": "groundwork", "api": "/v1", "docs": "/docs", "dashboard": "/ui", "health": "/readyz"}


@router.get("/healthz", response_model=Liveness, summary="Is the process alive")
async def healthz() -> Liveness:
    """Touches nothing else: a supervisor restarts the process when this fails."""
    return Liveness()


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": NotReady, "description": "At least one part that requests need has failed"}},
    summary="Can it serve",
)
def readyz(platform: PlatformDep) -> Response:
    """Writes to the database, looks at the disk's head-room, asks the broker; each told apart."""
    parts = {
        "database": _timed(_database, platform),
        "store": _timed(_store, platform),
        "broker": _timed(_broker, platform),
    }
    ready = not any(part.status == "failed" for part in parts.values())
    body = Readiness(status="ready" if ready else "not_ready", parts=parts).model_dump()
    if ready:
        return JSONResponse(body)
    failed = ", ".join(name for name, part in parts.items() if part.status == "failed")
    error = Unavailable("not_ready", f"Not ready: {failed}.")
    return JSONResponse(error.body() | body, error.status, headers=error.headers)


@router.get("/metrics", response_class=Response, summary="Prometheus metrics")
def metrics(platform: PlatformDep) -> Response:
    """Text exposition format; labels are route templates, states and queues. Jobs and datasets are the database's."""
    return Response(exposition(_counted(platform)), media_type="text/plain; version=0.0.4; charset=utf-8")


def _counted(platform: Platform) -> list[Metric]:
    """The process's own numbers are told even while the database is away."""
    up = GaugeMetricFamily("groundwork_database_up", "Whether the database answered this scrape", value=1)
    try:
        with read_scope(platform) as session:
            return [*measure_jobs(session), *measure_datasets(session), up]
    except SQLAlchemyError as error:
        log.warning("not_counted", error=type(error).__name__)
        return [GaugeMetricFamily(up.name, up.documentation, value=0)]


def _timed(check: Any, platform: Platform) -> Part:
    began = time.perf_counter()
    try:
        status, detail = check(platform)
    except Exception as error:
        log.warning("not_ready", part=check.__name__.strip("_"), error=type(error).__name__)
        status, detail = "failed", f"{type(error).__name__}; see the log"
    return Part(status=status, detail=detail, milliseconds=round((time.perf_counter() - began) * 1000, 1))


def _database(platform: Platform) -> tuple[str, str | None]:
    with session_scope(platform) as session:
        session.merge(Heartbeat(name="readyz", beat_ms=now_ms(session)))
    return "ok", None


def _store(platform: Platform) -> tuple[str, str | None]:
    free = platform.store.free_bytes()
    needed = platform.settings.min_free_bytes
    if free is None:
        platform.store.exists("readyz")
        return "ok", None
    if free < needed:
        return "failed", f"{free} bytes free, {needed} needed"
    return "ok", f"{free} bytes free"


def _broker(platform: Platform) -> tuple[str, str | None]:
    """Degraded, never failed: without it jobs still run, found by polling."""
    url = platform.settings.broker_url
    if not url:
        return "ok", "none configured; workers poll"
    try:
        ask_broker(url)
    except OSError as error:
        return "degraded", f"{type(error).__name__}: jobs wait for the next poll"
    return "ok", None


def ask_broker(url: str) -> None:
    """Say PING; a server that asks for a password first is up too. Raises OSError where none answers."""
    parts = urlsplit(url)
    if parts.scheme.endswith("socket"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(2)
        address: Any = parts.path or parse_qs(parts.query).get("path", [""])[0]
        connection.connect(address)
    else:
        connection = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=2)
    with connection:
        if parts.scheme.startswith("rediss"):
            return
        connection.sendall(b"PING\r\n")
        if connection.recv(1) not in (b"+", b"-"):
            raise ConnectionError("no answer to PING")
