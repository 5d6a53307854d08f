"""A small world for the job machine: datasets that are ready, jobs, and a worker that speaks the internal door."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.datasets import service as datasets
from app.jobs import attempts, planning, service
from app.jobs.limits import Limits
from app.jobs.tables import Attempt, Job
from app.jobs.turns import Wanted
from app.platform import Platform, session_scope
from app.storage import Stored
from ssl_core.spec import PretrainSpec
from tests.app.conftest import SECRETS

WORKER = {"name": "w1", "host": "host-1", "pid": 1, "boot_id": "b"}
LIMITS = Limits(lease_ms=1000, grace_ms=2000, max_infra_losses=2, backoff_ms=100, reconcile_ms=500)
PROFILE = {
    "modality": "text", "rows": 1000, "labelled": 100, "classes": ["a", "b"], "class_counts": {"a": 50, "b": 50},
    "characters": 400_000, "bad_rows": 0,
}  # fmt: skip


def ready_dataset(platform: Platform, project_id: str, content: bytes = b"rows", **profile: Any) -> str:
    """The id of a dataset whose ingest is over; its ingest job stays queued, out of a claim's way."""
    dataset_id = datasets.new_dataset_id()
    sha = hashlib.sha256(content).hexdigest()
    key = f"datasets/{dataset_id}/rows-00000.parquet"
    platform.store.put(key, content)
    platform.store.put(datasets.upload_key(dataset_id), content)
    stored = Stored(datasets.upload_key(dataset_id), len(content), sha)
    file = {"path": "rows-00000.parquet", "size": len(content), "sha256": sha, "key": key}
    with session_scope(platform) as session:
        new = datasets.NewDataset(dataset_id, stored, "pool.txt")
        row = datasets.create(session, platform.settings, project_id, new)
        datasets.finish_ingest(session, dataset_id, [file], PROFILE | profile)  # type: ignore[list-item]
        session.get_one(Job, row.job_id).status = "succeeded"
    return dataset_id


def pretrain_body(dataset_id: str, **more: Any) -> dict[str, Any]:
    """The smallest useful request."""
    return {"type": "pretrain", "dataset": dataset_id, "objective": {"name": "mlm"}, **more}


def make_job(session: Session, project_id: str, dataset_id: str) -> Job:
    """A queued job, written without the HTTP door."""
    spec = PretrainSpec.model_validate(pretrain_body(dataset_id))
    plan = planning.plan(session, project_id, spec)
    return service.enqueue(session, project_id=project_id, spec=plan.spec, inputs=plan.inputs)


def take(session: Session, job_id: str | None = None, limits: Limits = LIMITS) -> Attempt:
    """Claim, and return the attempt's row."""
    claimed = attempts.claim(session, Wanted(job_id, "cpu"), WORKER, limits)
    assert claimed is not None
    return session.get_one(Attempt, (claimed.job.id, claimed.job.fence))


def metrics_event(seq: int, step: int, **values: Any) -> dict[str, Any]:
    """A `metrics` event as the wire carries it."""
    return {"seq": seq, "time": 0.0, "type": "metrics", "step": step, "values": values}


def message_event(seq: int, code: str, step: int | None = None) -> dict[str, Any]:
    """A `message` event."""
    return {"seq": seq, "time": 0.0, "type": "message", "level": "info", "code": code, "message": code, "step": step}


def progress_event(seq: int, step: int, total: int = 100) -> dict[str, Any]:
    """A `progress` event in training."""
    return {"seq": seq, "time": 0.0, "type": "progress", "stage": "training", "step": step, "total_steps": total}


@dataclass
class Worker:
    """A worker at the door of an application in this process."""

    client: TestClient
    """Without any key."""

    def claim(self, job_id: str | None = None, queue: str = "cpu") -> dict[str, Any] | None:
        """The ticket, or None where there was nothing to claim."""
        body = {"job_id": job_id, "queue": queue, "worker": WORKER}
        headers = {"Authorization": f"Bearer {SECRETS['worker_token']}"}
        reply = self.client.post("/internal/v1/claim", json=body, headers=headers)
        assert reply.status_code in (200, 204), reply.text
        return None if reply.status_code == 204 else reply.json()

    def post(self, ticket: dict[str, Any], verb: str, **body: Any) -> Any:
        """The raw reply of one verb."""
        url = f"/internal/v1/jobs/{ticket['job_id']}/{verb}"
        return self.client.post(url, json={"fence": ticket["fence"], **body}, headers=bearer(ticket["token"]))

    def put(self, ticket: dict[str, Any], path: str, content: bytes, **headers: str) -> Any:
        """The raw reply of a file upload."""
        sha = hashlib.sha256(content).hexdigest()
        named = {"X-Fence": str(ticket["fence"]), "X-Content-SHA256": sha, **bearer(ticket["token"]), **headers}
        return self.client.put(f"/internal/v1/jobs/{ticket['job_id']}/files/{path}", content=content, headers=named)

    def checkpoint(self, ticket: dict[str, Any], step: int, content: bytes = b"weights") -> Any:
        """Upload and commit a checkpoint of one file."""
        assert self.put(ticket, f"checkpoints/step-{step:09d}/nets.safetensors", content).status_code in (200, 201)
        return self.post(ticket, "checkpoints", step=step, files=[entry("nets.safetensors", content)], metrics={})

    def complete(self, ticket: dict[str, Any]) -> Any:
        """Upload a model and complete."""
        files = [entry(path, b"bytes") for path in ("config.json", "model.safetensors")]
        for file in files:
            assert self.put(ticket, f"artifact/{file['path']}", b"bytes").status_code in (200, 201)
        return self.post(ticket, "complete", files=files, metrics={"loss": 1.0}, summary=summary(ticket["spec"]))


def summary(spec: dict[str, Any]) -> dict[str, Any]:
    """`config.json` of a model that this resolved spec would make."""
    shape = {name: spec[name] for name in ("modality", "backbone", "objective")}
    return {
        "format": "groundwork-1", "kind": "encoder", **shape, "facts": {}, "task": None, "classes": [],
        "embed_dim": 256, "parameters": 10, "max_length": 128,
    }  # fmt: skip


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A manifest entry."""
    return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def bearer(token: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {token}"}
