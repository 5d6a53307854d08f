"""The edge of every `/v1` route: one class that all routers are built on."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute


class EdgeRoute(APIRoute):
    """A route of the public API."""


def api_router(tag: str) -> APIRouter:
    """The router of a domain: `router = api_router("jobs")`; its routes are served below `/v1`."""
    return APIRouter(tags=[tag], route_class=EdgeRoute)
