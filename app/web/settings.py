"""Pages for those who run a project: its keys, and who is told of what."""

from __future__ import annotations

import time

from fastapi import Request, Response

from app.auth import service as auth
from app.auth.schemas import KeyShape
from app.deps import AdminKey, PageDep, ReadSessionDep, SettingsDep
from app.pagination import Page
from app.web.edge import listed, page, page_router
from app.webhooks import service as webhooks
from app.webhooks.schemas import DeliveryShape, EndpointShape

router = page_router()
_DELIVERIES = Page(limit=10, after=None, order="desc")


@router.get("/keys")
def keys_page(request: Request, key: AdminKey, session: ReadSessionDep, at: PageDep) -> Response:
    """The project's keys; never a secret."""
    found = listed(session, auth.keys_of(key.project_id), at, KeyShape.of)
    return page(
        request, "keys.html", title="Keys", found=found, own=key.key_id, now=time.time(), scopes=auth.ALL_SCOPES
    )


@router.get("/webhooks")
def webhooks_page(
    request: Request, key: AdminKey, session: ReadSessionDep, settings: SettingsDep, at: PageDep
) -> Response:
    """Receivers, and what came of the newest deliveries to each."""
    found = listed(session, webhooks.endpoints_of(key.project_id), at, EndpointShape.of)
    sent = {
        each.id: listed(session, webhooks.deliveries_of(each.id), _DELIVERIES, DeliveryShape.of)["data"]
        for each in found["data"]
    }
    return page(
        request, "webhooks.html", title="Webhooks", found=found, sent=sent, events=webhooks.EVENTS,
        outbound=settings.outbound,
    )  # fmt: skip
