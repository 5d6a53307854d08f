"""The record of what was done with keys, and of what was deleted.

A route is marked with `@audited("api_key.revoked")`; when it has done its work, the entry joins the same transaction.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from fastapi import Request, Response
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.auth.guard import Principal
from app.auth.tables import AuditEvent
from app.db import now_ms
from app.ids import new_id

F = TypeVar("F", bound=Callable[..., Any])
_ACTION = "audited_as"


def audited(action: str) -> Callable[[F], F]:
    """Mark a route (below its path decorator) whose successes are entered as `action`."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _ACTION, action)
        return endpoint

    return mark


def action_of(endpoint: Callable[..., Any]) -> str | None:
    """What its successes are entered as; None = they are not."""
    found: str | None = getattr(endpoint, _ACTION, None)
    return found


def enter(session: Session, request: Request, asking: Principal, action: str, response: Response) -> None:
    """One entry. Its target is the thing that the path names first, else the one that the reply made."""
    named = next(iter(request.path_params.values()), None) or json.loads(bytes(response.body)).get("id", "")
    known = structlog.contextvars.get_contextvars().get("request_id", "")
    session.add(
        AuditEvent(
            id=new_id("aud"), project_id=asking.project_id, key_id=asking.key_id, action=action,
            target_id=str(named)[:64], request_id=str(known)[:100], created_ms=now_ms(session),
            address=request.client.host[:64] if request.client else None,
        )
    )  # fmt: skip
    session.flush()


def entries(project_id: str, action: str | None, target: str | None) -> Select[AuditEvent]:
    """The entries of a project, of one action or about one thing."""
    query = select(AuditEvent).where(AuditEvent.project_id == project_id)
    query = query if action is None else query.where(AuditEvent.action == action)
    return query if target is None else query.where(AuditEvent.target_id == target)
