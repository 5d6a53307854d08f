"""Projects and keys as the API shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.auth.guard import Scope
from app.auth.tables import ApiKey, AuditEvent, Project
from ssl_core.values import Value

Name = Annotated[str, Field(min_length=1, max_length=200, examples=["laptop"])]
_YEAR_3000 = 32_503_680_000
_KEY: dict[str, Any] = {
    "object": "api_key", "id": "key_01jd3w7k2x", "created_at": 1767225600, "name": "laptop",
    "scopes": ["read", "write"], "expires_at": None, "revoked_at": None,
}  # fmt: skip

_ENTRY: dict[str, Any] = {
    "object": "audit_event", "id": "aud_01jd3w7k2x", "created_at": 1767225600, "action": "api_key.revoked",
    "target": "key_01jd3w7k2x", "key": "key_01jd3w7aaa", "request_id": "req_01jd3w7k2x", "address": "192.0.2.7",
}  # fmt: skip


class KeyCreate(Value):
    """A new key of this project."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "laptop", "scopes": ["read", "write"]}})

    name: Name
    scopes: list[Scope] = Field(default=["read", "write"], min_length=1, max_length=3)
    expires_at: int | None = Field(default=None, ge=1, le=_YEAR_3000, description="unix seconds; null: never")


class KeyRotate(Value):
    """A new secret for the same purpose; the old key works on for a while."""

    model_config = ConfigDict(json_schema_extra={"example": {"overlap_seconds": 3600}})

    overlap_seconds: int = Field(default=3600, ge=0, le=30 * 86400, description="how long the old key still works")


class KeyShape(BaseModel):
    """A key; its secret is shown once, when it is made."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    object: Literal["api_key"] = "api_key"
    id: str
    created_at: int = Field(description="unix seconds")
    name: str
    scopes: list[Scope]
    expires_at: int | None
    revoked_at: int | None
    key: str | None = Field(default=None, description="the secret; only in the reply that made it, and never again")

    @classmethod
    def of(cls, row: ApiKey, secret: str | None = None) -> KeyShape:
        """The shape of a row."""
        return cls.model_validate(
            {
                "id": row.id,
                "created_at": row.created_ms // 1000,
                "name": row.name,
                "scopes": row.scopes.split(),
                "expires_at": _seconds(row.expires_ms),
                "revoked_at": _seconds(row.revoked_ms),
                "key": secret,
            }
        )


class ProjectCreate(Value):
    """A new project, a tenant of its own."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "vision team"}})

    name: Name


class ProjectShape(BaseModel):
    """A project; the reply that makes it also holds its first admin key."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"object": "project", "id": "proj_01jd3w7aaa", "created_at": 1767225600, "name": "vision team"}
            ]
        }
    )

    object: Literal["project"] = "project"
    id: str
    created_at: int = Field(description="unix seconds")
    name: str
    api_key: KeyShape | None = Field(default=None, description="its first key; only in the reply that made it")

    @classmethod
    def of(cls, row: Project, api_key: KeyShape | None = None) -> ProjectShape:
        """The shape of a row."""
        return cls(id=row.id, created_at=row.created_ms // 1000, name=row.name, api_key=api_key)


class AuditShape(BaseModel):
    """One entry of the record."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ENTRY]})

    object: Literal["audit_event"] = "audit_event"
    id: str
    created_at: int = Field(description="unix seconds")
    action: str = Field(description="such as `api_key.revoked` or `dataset.deleted`")
    target: str = Field(description="id of the thing that it was done to")
    key: str = Field(description="id of the key that did it")
    request_id: str
    address: str | None = Field(description="of the caller, as this server saw it")

    @classmethod
    def of(cls, row: AuditEvent) -> AuditShape:
        """The shape of a row."""
        return cls(
            id=row.id, created_at=row.created_ms // 1000, action=row.action, target=row.target_id, key=row.key_id,
            request_id=row.request_id, address=row.address,
        )  # fmt: skip


class Deleted(BaseModel):
    """What is gone."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "key_01jd3w7k2x", "object": "api_key", "deleted": True}]}
    )

    id: str
    object: Literal["api_key"] = "api_key"
    deleted: Literal[True] = True


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000
