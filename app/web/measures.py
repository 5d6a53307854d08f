"""Pages that measure: runs side by side, a report of label efficiency, a map of a dataset's vectors."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse

from app.datasets import service as datasets
from app.deps import ReadKey, ReadSessionDep, StoreDep
from app.errors import NotFound
from app.inference.rows import StoredReader
from app.jobs import artifacts, points, service
from app.jobs.schemas import as_job
from app.storage import Store
from app.web import formats, rows
from app.web.edge import page, page_router
from ssl_core.evaluation_spec import ARM_WORDS

router = page_router()
MOST_RUNS, MOST_VECTORS, WORDS = 8, 2000, 160
MAX_REPORT = 8 * 2**20


@router.get("/compare")
def compare_page(
    request: Request, key: ReadKey, session: ReadSessionDep, job: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Up to eight runs: curves over each other, what differs in their specs, their scores."""
    chosen = list(dict.fromkeys(job or []))[:MOST_RUNS]
    found = [service.get(session, key.project_id, each) for each in chosen]
    runs = [as_job(each) for each in found]
    specs = [formats.flat(run.resolved_spec) for run in runs]
    fields = list(dict.fromkeys(field for spec in specs for field in spec))
    table = [(field, [spec.get(field) for spec in specs]) for field in fields]
    scores = [(run.result or {}).get("metrics") or {} for run in runs]
    return page(
        request, "compare.html", title="Compare runs", runs=runs, titles=[rows.title(run) for run in runs],
        differing=[(field, values) for field, values in table if any(value != values[0] for value in values)],
        same=[(field, values[0]) for field, values in table if all(value == values[0] for value in values)],
        scores=[(name, [each.get(name) for each in scores]) for name in sorted({n for each in scores for n in each})],
        series=[points.series_names(session, run.id) for run in runs],
    )  # fmt: skip


@router.get("/reports/{job_id}")
def report_page(job_id: str, request: Request, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> Response:
    """What pretraining was worth in labels."""
    job = service.get(session, key.project_id, job_id)
    file = artifacts.result_file(session, job, "report.json")
    session.close()
    report = json.loads(store.get_range(file.key, 0, min(file.size, MAX_REPORT)))
    lines = [{"label": ARM_WORDS.get(arm, arm), "points": told} for arm, told in report["curves"].items()]
    return page(
        request, "report.html", title="Label efficiency", job=as_job(job), report=report, words=ARM_WORDS, lines=lines
    )


@router.get("/maps/{job_id}")
def map_page(job_id: str, request: Request, key: ReadKey, session: ReadSessionDep) -> Response:
    """The vectors of an `embed` job on a plane."""
    job = service.get(session, key.project_id, job_id)
    artifacts.result_file(session, job, "embeddings.parquet")
    told = as_job(job)
    named = rows.names(session, key.project_id, [told.resolved_spec])
    return page(request, "map.html", title="Embedding map", job=told, names=named, most=MOST_VECTORS)


@router.get("/maps/{job_id}/vectors")
def map_vectors(job_id: str, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> Response:
    """At most 2,000 vectors, evenly over the rows, with label and words of each: what the map is drawn from."""
    job = service.get(session, key.project_id, job_id)
    file = artifacts.result_file(session, job, "embeddings.parquet")
    spec = as_job(job).resolved_spec
    about, files = _rows_of(session, key.project_id, str(spec["dataset"]))
    session.close()
    kept, dim, raw = _vectors(store, file.key, file.size)
    told = _words(store, files, set(kept), about)
    named = [told.get(row, (None, "")) for row in kept]
    body = {
        "rows": kept, "dim": dim, "vectors": base64.b64encode(raw).decode(), "dataset": spec["dataset"],
        "media": about if about in ("image", "audio") else None,
        "labels": [label for label, _ in named], "words": [words for _, words in named],
    }  # fmt: skip
    return JSONResponse(body)


def _rows_of(session: Any, project_id: str, dataset_id: str) -> tuple[str, list[datasets.StoredFile]]:
    """The modality and the row files of a dataset; nothing where it is gone."""
    try:
        row = datasets.get(session, project_id, dataset_id)
    except NotFound:
        return "", []
    files = datasets.digest_and_files(session, row.id)[1]
    return row.modality or "", [file for file in files if file["path"].startswith("rows-")]


def _vectors(store: Store, key: str, size: int) -> tuple[list[int], int, bytes]:
    """(row numbers, dimensions, little-endian float32) of the rows that are shown."""
    import pyarrow.parquet as parquet

    kept: list[int] = []
    pieces: list[bytes] = []
    with parquet.ParquetFile(StoredReader(store, key, size)) as opened:
        total = opened.metadata.num_rows
        stride = -(-total // MOST_VECTORS) or 1
        seen = 0
        for batch in opened.iter_batches(batch_size=4096, columns=["row", "embedding"], use_threads=False):
            wanted = [at for at in range(batch.num_rows) if (seen + at) % stride == 0]
            seen += batch.num_rows
            taken = batch.take(wanted)
            kept += taken.column("row").to_pylist()
            flat = taken.column("embedding").flatten()
            pieces.append(flat.buffers()[1][flat.offset * 4 : (flat.offset + len(flat)) * 4].to_pybytes())
    raw = b"".join(pieces)
    return kept, len(raw) // 4 // max(1, len(kept)), raw


def _words(
    store: Store, files: list[datasets.StoredFile], wanted: set[int], modality: str
) -> dict[int, tuple[str | None, str]]:
    """(label, first words) of these rows."""
    import pyarrow.parquet as parquet

    column = {"text": "text", "protein": "protein", "image_text": "text"}.get(modality, "source")
    found: dict[int, tuple[str | None, str]] = {}
    first = 0
    for file in files:
        with parquet.ParquetFile(StoredReader(store, file["key"], file["size"])) as opened:
            for batch in opened.iter_batches(batch_size=4096, columns=["label", column], use_threads=False):
                labels, told = batch.column("label"), batch.column(column)
                here = [at for at in range(batch.num_rows) if first + at in wanted]
                found |= {first + at: (labels[at].as_py(), str(told[at].as_py() or "")[:WORDS]) for at in here}
                first += batch.num_rows
    return found
