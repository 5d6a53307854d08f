# Made from ../aio/account.py by `python -m groundwork.rest.twin`; change that file, not this one.
"""What can be trained, and who may: the catalogue, keys, projects, webhooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from groundwork.rest.account_values import Delivery, Key, Project, Webhook
from groundwork.rest.names import path_of
from groundwork.rest.sync.resource import Resource
from groundwork.rest.values import Json, Rows, Thing


class Catalogue(Resource):
    """What the server can train; each entry has `name`, the JSON Schema of its fields and the modalities it fits."""

    def objectives(self, *, modality: str | None = None) -> Rows:
        """Ways to pretrain."""
        return self._listed("objectives", modality)

    def backbones(self, *, modality: str | None = None) -> Rows:
        """Encoders by name and size."""
        return self._listed("backbones", modality)

    def tasks(self, *, modality: str | None = None) -> Rows:
        """What can be fine-tuned to."""
        return self._listed("tasks", modality)

    def _listed(self, kind: str, modality: str | None) -> Rows:
        asked = {} if modality is None else {"modality": modality}
        found: Rows = (self.gw.request("GET", path_of(kind), params=asked))["data"]
        return found


class Keys(Resource):
    """API keys of the project; needs the scope `admin`."""

    def create(
        self, name: str, *, scopes: Sequence[str] = ("read", "write"), expires_at: int | None = None
    ) -> Key:
        """Make one; `key` of the answer is the secret, which is told this once. `expires_at`: unix seconds."""
        body = {"name": name, "scopes": [*scopes], "expires_at": expires_at}
        return Key(self.gw.request("POST", "/api_keys", json=body))

    def get(self, id: str) -> Key:
        """One key, without its secret."""
        return Key(self.gw.request("GET", path_of("api_keys", id)))

    def list(self, *, limit: int | None = None) -> Iterator[Key]:
        """Iterate over the keys, newest first."""
        return self.pages("/api_keys", Key, limit)

    def revoke(self, id: str) -> Json:
        """From now on it opens nothing."""
        return self.gw.transport.delete(path_of("api_keys", id))

    def rotate(self, id: str, *, overlap_seconds: int = 3600) -> Key:
        """A new key for the same purpose; the old one works until the overlap is over."""
        body = {"overlap_seconds": overlap_seconds}
        return Key(self.gw.request("POST", path_of("api_keys", id, "rotate"), json=body))


class Projects(Resource):
    """Projects; making them needs an admin key of the first one."""

    def create(self, name: str) -> Project:
        """Make one; `api_key.key` of the answer is its first key, which is told this once."""
        return Project(self.gw.request("POST", "/projects", json={"name": name}))

    def get(self, id: str) -> Project:
        """One project."""
        return Project(self.gw.request("GET", path_of("projects", id)))

    def list(self, *, limit: int | None = None) -> Iterator[Project]:
        """Iterate over the projects that the key may see."""
        return self.pages("/projects", Project, limit)

    def audit_log(self, *, limit: int | None = None) -> Iterator[Thing]:
        """Iterate over who did what in this project, newest first."""
        return self.pages("/audit_log", Thing, limit)


class Webhooks(Resource):
    """Receivers of events; needs the scope `admin`."""

    def create(self, url: str, events: Sequence[str], *, description: str | None = None) -> Webhook:
        """Add one; `secret` of the answer signs what it gets, and is told this once."""
        body = {"url": url, "events": [*events], "description": description}
        return Webhook(self.gw.request("POST", "/webhook_endpoints", json=body))

    def get(self, id: str) -> Webhook:
        """One receiver."""
        return Webhook(self.gw.request("GET", path_of("webhook_endpoints", id)))

    def list(self, *, limit: int | None = None) -> Iterator[Webhook]:
        """Iterate over the receivers, newest first."""
        return self.pages("/webhook_endpoints", Webhook, limit)

    def update(self, id: str, **changes: Any) -> Webhook:
        """Change `url`, `events`, `description` or `status` (`enabled` takes a disabled one back)."""
        return Webhook(self.gw.request("PATCH", path_of("webhook_endpoints", id), json=changes))

    def delete(self, id: str) -> Json:
        """Remove it, with all that was still on its way."""
        return self.gw.transport.delete(path_of("webhook_endpoints", id))

    def rotate_secret(self, id: str, *, overlap_seconds: int = 86_400) -> Webhook:
        """A new secret; both sign until the overlap is over."""
        body = {"overlap_seconds": overlap_seconds}
        return Webhook(self.gw.request("POST", path_of("webhook_endpoints", id, "rotate_secret"), json=body))

    def test(self, id: str) -> Delivery:
        """Send it an event `webhook.test`."""
        return Delivery(self.gw.request("POST", path_of("webhook_endpoints", id, "test")))

    def deliveries(self, id: str, *, limit: int | None = None) -> Iterator[Delivery]:
        """Iterate over what was sent to it in the last 30 days, and what waits."""
        return self.pages(path_of("webhook_endpoints", id, "deliveries"), Delivery, limit)
