"""What tests of interchange over HTTP share: uploads, and jobs waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from tests.groundwork.serving import eventually


def ended(client: httpx2.Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has come to an end."""
    assert "id" in job, job

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        return found if found["status"] in ("succeeded", "failed", "cancelled") else None

    done: dict[str, Any] = eventually(look, 270)
    return done


def sent(client: httpx2.Client, archive: Path) -> dict[str, Any]:
    """The import job of a zip, at its end."""
    reply = client.post("/v1/models", files={"file": (archive.name, archive.read_bytes(), "application/zip")})
    assert reply.status_code == 201, reply.text
    return ended(client, reply.json())


def dataset(client: httpx2.Client, name: str, content: bytes) -> str:
    """The id of a dataset once it is ready."""
    made = client.post("/v1/datasets", files={"file": (name, content)}).json()
    assert "id" in made, made

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/v1/datasets/{made['id']}").json()
        return found if found["status"] not in ("uploaded", "ingesting") else None

    done = eventually(look, 270)
    assert done["status"] == "ready", done
    return str(made["id"])
