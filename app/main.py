"""The API role: `groundwork api`, or `uvicorn app.main:create_app --factory`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from app.errors import ApiError
from app.platform import Platform
from app.settings import Settings, get_settings

_DOMAINS = ("auth", "datasets", "jobs", "models", "inference", "catalogue")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; connects to nothing before the first request."""
    platform = Platform.open(settings or get_settings())
    app = FastAPI(title="Groundwork", lifespan=_lifespan, redirect_slashes=False)
    app.state.platform = platform
    app.add_exception_handler(ApiError, _render)
    for domain in _DOMAINS:
        if importlib.util.find_spec(f"app.{domain}") and importlib.util.find_spec(f"app.{domain}.routes"):
            app.include_router(importlib.import_module(f"app.{domain}.routes").router, prefix="/v1")
    if importlib.util.find_spec("app.internal") and importlib.util.find_spec("app.internal.routes"):
        app.include_router(importlib.import_module("app.internal.routes").router, prefix="/internal/v1")
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    platform: Platform = app.state.platform
    reaper = importlib.import_module("app.reaper").start(platform) if importlib.util.find_spec("app.reaper") else None
    yield
    if reaper is not None:
        reaper.stop()
    platform.close()


async def _render(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, headers=error.headers)
