"""The API role: `groundwork api`, or `uvicorn app.main:create_app --factory`. Never imports torch (R33)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import failures, health
from app.middleware import RequestEdge
from app.openapi import DESCRIPTION, TAGS
from app.platform import Platform
from app.settings import Settings, get_settings
from app.telemetry import configure_logging

_DOMAINS = ("auth", "datasets", "jobs", "models", "inference", "catalogue")
GRACE_SECONDS = 10  # for open requests at shutdown; streams are told to reconnect


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Connects to nothing: a database that is down shows in /readyz, not as a dead process (F8)."""
    platform = Platform.open(settings or get_settings())
    configure_logging(platform.settings.log_level)
    app = FastAPI(
        title="Groundwork",
        version="1",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=_lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.platform = platform
    app.state.in_flight = set()
    app.add_middleware(RequestEdge)
    failures.install(app)
    for domain in _DOMAINS:
        if importlib.util.find_spec(f"app.{domain}") and importlib.util.find_spec(f"app.{domain}.routes"):
            app.include_router(importlib.import_module(f"app.{domain}.routes").router, prefix="/v1")
    if importlib.util.find_spec("app.internal") and importlib.util.find_spec("app.internal.routes"):
        app.include_router(importlib.import_module("app.internal.routes").router, prefix="/internal/v1")
    app.include_router(health.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    platform: Platform = app.state.platform
    reaper = importlib.import_module("app.reaper").start(platform) if importlib.util.find_spec("app.reaper") else None
    yield
    if reaper is not None:
        reaper.stop()
    platform.close()
