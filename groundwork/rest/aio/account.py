"""What can be trained, and who may: the catalogue, keys, projects, webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from groundwork.rest.account_values import Delivery, Key, Project, Webhook
from groundwork.rest.aio.resource import AsyncResource
from groundwork.rest.names import path_of
from groundwork.rest.values import Json, Rows, Thing


class AsyncCatalogue(AsyncResource):
    """What the server can train; each entry has `name`, the JSON Schema of its fields and the modalities it fits."""

    async def objectives(self, *, modality: str | None = None) -> Rows:
        """Ways to pretrain."""
        return await self._listed("objectives", modality)

    async def backbones(self, *, modality: str | None = None) -> Rows:
        """Encoders by name and size."""
        return await self._listed("backbones", modality)

    async def tasks(self, *, modality: str | None = None) -> Rows:
        """What can be fine-tuned to."""
        return await self._listed("tasks", modality)

    async def _listed(self, kind: str, modality: str | None) -> Rows:
        asked = {} if modality is None else {"modality": modality}
        found: Rows = (await self.gw.request("GET", path_of(kind), params=asked))["data"]
        return found


class AsyncKeys(AsyncResource):
    """API keys of the project; needs the scope `admin`."""

    async def create(
        self, name: str, *, scopes: Sequence[str] = ("read", "write"), expires_at: int | None = None
    ) -> Key:
        """Make one; `key` of the answer is the secret, which is told this once. `expires_at`: unix seconds."""
        body = {"name": name, "scopes": [*scopes], "expires_at": expires_at}
        return Key(await self.gw.request("POST", "/api_keys", json=body))

    async def get(self, id: str) -> Key:
        """One key, without its secret."""
        return Key(await self.gw.request("GET", path_of("api_keys", id)))

    def list(self, *, limit: int | None = None) -> AsyncIterator[Key]:
        """Iterate over the keys, newest first."""
        return self.pages("/api_keys", Key, limit)

    async def revoke(self, id: str) -> Json:
        """From now on it opens nothing."""
        return await self.gw.transport.delete(path_of("api_keys", id))

    async def rotate(self, id: str, *, overlap_seconds: int = 3600) -> Key:
        """A new key for the same purpose; the old one works until the overlap is over."""
        body = {"overlap_seconds": overlap_seconds}
        return Key(await self.gw.request("POST", path_of("api_keys", id, "rotate"), json=body))


class AsyncProjects(AsyncResource):
    """Projects; making them needs an admin key of the first one."""

    async def create(self, name: str) -> Project:
        """Make one; `api_key.key` of the answer is its first key, which is told this once."""
        return Project(await self.gw.request("POST", "/projects", json={"name": name}))

    async def get(self, id: str) -> Project:
        """One project."""
        return Project(await self.gw.request("GET", path_of("projects", id)))

    def list(self, *, limit: int | None = None) -> AsyncIterator[Project]:
        """Iterate over the projects that the key may see."""
        return self.pages("/projects", Project, limit)

    def audit_log(self, *, limit: int | None = None) -> AsyncIterator[Thing]:
        """Iterate over who did what in this project, newest first."""
        return self.pages("/audit_log", Thing, limit)


class AsyncWebhooks(AsyncResource):
    """Receivers of events; needs the scope `admin`."""

    async def create(self, url: str, events: Sequence[str], *, description: str | None = None) -> Webhook:
        """Add one; `secret` of the answer signs what it gets, and is told this once."""
        body = {"url": url, "events": [*events], "description": description}
        return Webhook(await self.gw.request("POST", "/webhook_endpoints", json=body))

    async def get(self, id: str) -> Webhook:
        """One receiver."""
        return Webhook(await self.gw.request("GET", path_of("webhook_endpoints", id)))

    def list(self, *, limit: int | None = None) -> AsyncIterator[Webhook]:
        """Iterate over the receivers, newest first."""
        return self.pages("/webhook_endpoints", Webhook, limit)

    async def update(self, id: str, **changes: Any) -> Webhook:
        """Change `url`, `events`, `description` or `status` (`enabled` takes a disabled one back)."""
        return Webhook(await self.gw.request("PATCH", path_of("webhook_endpoints", id), json=changes))

    async def delete(self, id: str) -> Json:
        """Remove it, with all that was still on its way."""
        return await self.gw.transport.delete(path_of("webhook_endpoints", id))

    async def rotate_secret(self, id: str, *, overlap_seconds: int = 86_400) -> Webhook:
        """A new secret; both sign until the overlap is over."""
        body = {"overlap_seconds": overlap_seconds}
        return Webhook(await self.gw.request("POST", path_of("webhook_endpoints", id, "rotate_secret"), json=body))

    async def test(self, id: str) -> Delivery:
        """Send it an event `webhook.test`."""
        return Delivery(await self.gw.request("POST", path_of("webhook_endpoints", id, "test")))

    def deliveries(self, id: str, *, limit: int | None = None) -> AsyncIterator[Delivery]:
        """Iterate over what was sent to it in the last 30 days, and what waits."""
        return self.pages(path_of("webhook_endpoints", id, "deliveries"), Delivery, limit)
