"""`embed` jobs as finished ones leave them, without the run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from app.jobs import service as jobs
from app.jobs.tables import AttemptFile
from app.models import service as models
from app.platform import Platform, session_scope
from ssl_core.spec import EmbedSpec
from tests.app.registered import stored_folder


def vectors_folder(folder: Path, vectors: NDArray[float], labels: list[str | None] | None = None) -> Path:
    """A folder with `embeddings.parquet` as the engine writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    count, width = vectors.shape
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype("float32").ravel()), width)
    told = {"source": pa.array([f"rows.csv:{at + 1}" for at in range(count)]), "label": labels or [None] * count}
    columns = {"row": pa.array(range(count)), **{name: pa.array(each, pa.string()) for name, each in told.items()}}
    parquet.write_table(pa.table({**columns, "embedding": flat}), folder / "embeddings.parquet")
    return folder


def embedded(
    platform: Platform, project_id: str, refs: tuple[str, str], folder: Path | None, pooling: str = "mean"
) -> str:
    """The id of an `embed` job of (dataset, model) that left `folder`, or is still queued where that is None."""
    dataset, model = refs
    spec = EmbedSpec.model_validate({"dataset": dataset, "model": model, "pooling": pooling})
    with session_scope(platform) as session:
        digest = models.digest_and_files(session, model)[0]
        inputs = [jobs.InputRef("model", model, digest), jobs.InputRef("dataset", dataset, "0" * 64)]
        job = jobs.enqueue(session, project_id=project_id, spec=spec, inputs=inputs)
        if folder is not None:
            job.status, job.fence = "succeeded", 1
            for file in stored_folder(platform, folder, f"jobs/{job.id}/1/made"):
                path = f"artifact/{file['path']}"
                row = AttemptFile(
                    job_id=job.id, fence=1, path=path, size=file["size"], sha256=file["sha256"], key=file["key"],
                    created_at=1,
                )  # fmt: skip
                session.add(row)
        return job.id
