"""Model and dataset rows as finished jobs leave them, without the jobs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from app.datasets import service as datasets
from app.datasets.tables import Dataset
from app.ids import new_id
from app.models import service as models
from app.models.service import StoredFile
from app.platform import Platform, session_scope


def stored_folder(platform: Platform, folder: Path, prefix: str) -> list[StoredFile]:
    """Put every file of a folder into the store."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"):
        name = path.relative_to(folder).as_posix()
        stored = platform.store.put(f"{prefix}/{name}", path.read_bytes())
        files.append(StoredFile(path=name, size=stored.size, sha256=stored.sha256, key=stored.key))
    return files


def model(platform: Platform, project_id: str, folder: Path, name: str = "topics", **changes: Any) -> str:
    """The id of a model made of a model folder."""
    job_id = new_id("job")
    result: dict[str, Any] = {
        "project_id": project_id,
        "job_id": job_id,
        "name": name,
        "files": stored_folder(platform, folder, f"jobs/{job_id}/1/artifact"),
        "summary": json.loads((folder / "config.json").read_text()),
        "metrics": {"accuracy": 0.75},
        "lineage": {
            "datasets": [{"id": "ds_abc", "role": "dataset", "digest": "d" * 64}],
            "base_model": None,
            "spec": {"type": "finetune", "seed": 7},
        },
        **changes,
    }
    with session_scope(platform) as session:
        return models.create_from_job(session, **result)


def dataset(platform: Platform, project_id: str, folder: Path, status: str = "ready") -> str:
    """The id of a dataset made of a canonical folder (docs/contracts.md §3), without an upload."""
    dataset_id = datasets.new_dataset_id()
    files = stored_folder(platform, folder, f"datasets/{dataset_id}/rows")
    profile = json.loads((folder / "profile.json").read_text())
    with session_scope(platform) as session:
        row = Dataset(
            id=dataset_id, project_id=project_id, created_ms=1, name="data", filename="data.csv", purpose="pretrain",
            bytes=1, sha256=hashlib.sha256(b"x").hexdigest(), key=f"datasets/{dataset_id}/upload", status="uploaded",
        )  # fmt: skip
        session.add(row)
        session.flush()
        if status == "ready":
            datasets.finish_ingest(session, dataset_id, files, profile)
    return dataset_id
