"""`/v1/api_keys` and `/v1/projects`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request

from app.auth import audit, service
from app.auth.audit import audited
from app.auth.schemas import AuditShape, Deleted, KeyCreate, KeyRotate, KeyShape, ProjectCreate, ProjectShape
from app.auth.tables import ApiKey, AuditEvent, Project
from app.deps import AdminKey, PageDep, ReadKey, ReadSessionDep, SessionDep, SettingsDep
from app.edge import api_router, keep_without_secret
from app.pagination import Listing, paginate

router = api_router("auth")


@router.post("/api_keys", response_model=KeyShape, status_code=201, summary="Make a key")
@audited("api_key.created")
def create_api_key(
    body: KeyCreate, key: AdminKey, session: SessionDep, settings: SettingsDep, request: Request
) -> KeyShape:
    """The secret is in this reply and nowhere else. A replay by `Idempotency-Key` shows the key without it."""
    expires = None if body.expires_at is None else body.expires_at * 1000
    row, secret = service.create_key(session, settings, key.project_id, body.name, body.scopes, expires)
    keep_without_secret(request, KeyShape.of(row))
    return KeyShape.of(row, secret)


@router.get("/api_keys", response_model=Listing[KeyShape], summary="List keys")
def list_api_keys(key: AdminKey, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """Revoked and expired ones too; never a secret."""
    return paginate(session, service.keys_of(key.project_id), ApiKey, page, KeyShape.of)


@router.get("/api_keys/{key_id}", response_model=KeyShape, summary="One key")
def get_api_key(key_id: str, key: AdminKey, session: ReadSessionDep) -> KeyShape:
    """Without its secret."""
    return KeyShape.of(service.get_key(session, key.project_id, key_id))


@router.delete("/api_keys/{key_id}", response_model=Deleted, summary="Revoke a key")
@audited("api_key.revoked")
def revoke_api_key(key_id: str, key: AdminKey, session: SessionDep) -> Deleted:
    """It opens nothing from now on. The last admin key of a project answers 409 `last_admin_key`."""
    return Deleted(id=service.revoke_key(session, key.project_id, key_id).id)


@router.post("/api_keys/{key_id}/rotate", response_model=KeyShape, status_code=201, summary="Rotate a key")
@audited("api_key.rotated")
def rotate_api_key(
    key_id: str, body: KeyRotate, key: AdminKey, session: SessionDep, settings: SettingsDep, request: Request
) -> KeyShape:
    """A new key with the same name and scopes; the old one still works for `overlap_seconds`."""
    row, secret = service.rotate_key(session, settings, key.project_id, key_id, body.overlap_seconds)
    keep_without_secret(request, KeyShape.of(row))
    return KeyShape.of(row, secret)


@router.get("/audit_log", response_model=Listing[AuditShape], summary="Who did what")
def list_audit_events(
    key: AdminKey,
    session: ReadSessionDep,
    page: PageDep,
    action: Annotated[str | None, Query(max_length=60, description="of one kind, such as `dataset.deleted`")] = None,
    target: Annotated[str | None, Query(max_length=64, description="about the thing with this id")] = None,
) -> dict[str, Any]:
    """What was done with keys and receivers, and what was deleted, in this project; entries are never changed."""
    return paginate(session, audit.entries(key.project_id, action, target), AuditEvent, page, AuditShape.of)


@router.post("/projects", response_model=ProjectShape, status_code=201, summary="Make a project")
@audited("project.created")
def create_project(
    body: ProjectCreate, key: AdminKey, session: SessionDep, settings: SettingsDep, request: Request
) -> ProjectShape:
    """Needs an admin key of the first project. The reply holds the new project's first admin key, once."""
    project, row, secret = service.create_project(session, settings, key, body.name)
    keep_without_secret(request, ProjectShape.of(project, KeyShape.of(row)))
    return ProjectShape.of(project, KeyShape.of(row, secret))


@router.get("/projects", response_model=Listing[ProjectShape], summary="List projects")
def list_projects(key: ReadKey, session: ReadSessionDep, page: PageDep) -> dict[str, Any]:
    """An admin key of the first project sees all, every other key its own project."""
    return paginate(session, service.projects_for(key), Project, page, ProjectShape.of)


@router.get("/projects/{project_id}", response_model=ProjectShape, summary="One project")
def get_project(project_id: str, key: ReadKey, session: ReadSessionDep) -> ProjectShape:
    """Another project is answered like a missing one."""
    return ProjectShape.of(service.get_project(session, key, project_id))
