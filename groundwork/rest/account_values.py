"""What the server tells of keys, projects and receivers."""

from __future__ import annotations

from groundwork.rest.values import Json, Thing


class Key(Thing):
    """An API key; `key`, the secret, is there only in the reply that made it."""

    id: str
    created_at: int
    name: str
    scopes: list[str]
    expires_at: int | None
    revoked_at: int | None
    key: str | None
    shown = ("id", "name", "scopes")  # never the secret


class Project(Thing):
    """A tenant. `api_key`, its first key, is there only in the reply that made it."""

    id: str
    created_at: int
    name: str
    shown = ("id", "name")

    @property
    def api_key(self) -> Key | None:
        """Its first key."""
        found = self.raw.get("api_key")
        return Key(found) if found else None


class Webhook(Thing):
    """A receiver of events; `secret` is there only in the reply that made it."""

    id: str
    created_at: int
    url: str
    events: list[str]
    description: str | None
    status: str
    disabled_reason: str | None
    secret: str | None
    shown = ("id", "url", "status")


class Delivery(Thing):
    """An event on its way to a receiver."""

    id: str
    created_at: int
    event: str
    data: Json
    status: str
    attempts: int
    answer_status: int | None
    error: str | None
    next_attempt_at: int | None
    shown = ("id", "event", "status")
