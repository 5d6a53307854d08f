"""Pages of datasets: the list with the upload, one dataset with its rows and its profile, and the rows' own media."""

from __future__ import annotations

import base64
import json
from typing import Any

from fastapi import Request, Response
from sqlalchemy.orm import Session

from app.datasets import service
from app.datasets.schemas import BadRowList, as_object
from app.deps import PageDep, ReadKey, ReadSessionDep, StoreDep
from app.errors import NotFound
from app.inference.rows import read_row
from app.jobs import reading
from app.jobs import service as jobs
from app.jobs.states import Status
from app.models import service as models
from app.storage import Store
from app.web.edge import listed, page, page_router
from app.web.rows import by_id
from ssl_core.modalities import MODALITIES

router = page_router()
_UNITS = {"text": "characters", "image": "pixels", "protein": "residues", "audio": "ms", "image_text": "pixels"}
_MAGIC = (
    (b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"), (b"\xff\xfb", "audio/mpeg"), (b"\xff\xf3", "audio/mpeg"),
)  # fmt: skip
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
_BAD_ROWS, _CLASSES, _PIECE = 50, 40, 60


@router.get("/datasets")
def datasets_page(request: Request, key: ReadKey, session: ReadSessionDep, at: PageDep) -> Response:
    """The project's datasets, newest first."""
    found = listed(session, service.of_project(key.project_id), at, as_object)
    return page(request, "datasets.html", title="Datasets", found=found, modalities=list(MODALITIES))


@router.get("/datasets/{dataset_id}")
def dataset_page(
    dataset_id: str, request: Request, key: ReadKey, session: ReadSessionDep, store: StoreDep
) -> Response:
    """What was uploaded, and what was understood of it."""
    row = service.get(session, key.project_id, dataset_id)
    shown = as_object(row)
    ready = shown.status == "ready"
    profile = service.profile(session, key.project_id, dataset_id) if ready else {}
    files = {name: _file(session, key.project_id, row, name) for name in ("preview.json", "errors.jsonl")}
    saw = by_id(session, models.of_project(key.project_id), set(models.that_saw(session, key.project_id, row.id)))
    running = jobs.live_job_using(session, row.id)
    searched = _searched(session, key.project_id, row.id) if ready else []
    session.close()  # nothing of the database is held while the store is read
    bad = [] if files["errors.jsonl"] is None else store.get(files["errors.jsonl"]["key"]).splitlines()[:_BAD_ROWS]
    return page(
        request, "dataset.html", title=shown.name, dataset=shown, profile=profile, models=list(saw.values()),
        rows=_preview(store, files["preview.json"]), bad=BadRowList.of_lines(bad, shown.bad_rows or 0),
        searched=searched, asked=_asked(searched), histogram=_histogram(profile),
        unit=_UNITS.get(shown.modality or "", ""), running=running, chunks=_chunks,
    )  # fmt: skip


@router.get("/datasets/{dataset_id}/rows/{row}")
def row_media(dataset_id: str, row: int, key: ReadKey, session: ReadSessionDep, store: StoreDep) -> Response:
    """The picture or the sound of a row, as it was uploaded. Raises NotFound, Unprocessable `row_not_found`."""
    facts = service.get(session, key.project_id, dataset_id)
    if facts.status != "ready" or facts.modality is None:
        raise NotFound("row", str(row), None)
    files = [file for file in service.digest_and_files(session, facts.id)[1] if file["path"].startswith("rows-")]
    session.close()
    content = read_row(store, files, facts.modality, max(0, row), "row")
    media = next((name for name in ("image", "audio") if name in content), None)
    if media is None:
        raise NotFound("picture or sound of row", str(row), None)
    raw = base64.b64decode(content[media])
    # A page of its own it never is: the type is one of ours, and nothing in it may run.
    held = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(raw, media_type=_type_of(raw), headers=held | {"X-Content-Type-Options": "nosniff"})


def _searched(session: Session, project_id: str, dataset_id: str) -> list[Any]:
    """Models whose vectors of this dataset can be searched, the newest first."""
    ids = reading.embeddings(session, project_id, dataset_id, [Status.SUCCEEDED])
    found = by_id(session, models.of_project(project_id), set(ids))
    return [found[id] for id in ids if id in found]


def _asked(searched: list[Any]) -> list[tuple[str, tuple[str, ...]]]:
    """(column, media types) of what any of these models reads; no media types = text."""
    names = dict.fromkeys(str(model.config["modality"]["name"]) for model in searched)
    columns = {name: column for modality in names for name, column in MODALITIES[modality].columns.items()}
    return [(name, tuple(column.media)) for name, column in columns.items()]


def _type_of(raw: bytes) -> str:
    if raw[:4] == b"RIFF":
        return _RIFF.get(raw[8:12], "application/octet-stream")
    return next((kind for magic, kind in _MAGIC if raw.startswith(magic)), "application/octet-stream")


def _file(session: Any, project_id: str, row: Any, name: str) -> service.StoredFile | None:
    return service.folder_file(session, project_id, row.id, name) if row.status == "ready" else None


def _preview(store: Store, file: service.StoredFile | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    told = json.loads(store.get(file["key"]))
    rows: list[dict[str, Any]] = told["rows"] if isinstance(told, dict) else told
    return rows


def _histogram(profile: dict[str, Any]) -> list[tuple[str, list[tuple[str, int]]]]:
    """(what, [(class, rows)]) of the labels and of every target that has classes, the most frequent first."""
    counted = {"label": profile.get("class_counts") or {}}
    counted |= {name: facts.get("class_counts") or {} for name, facts in (profile.get("targets") or {}).items()}
    return [
        (name, sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_CLASSES])
        for name, counts in counted.items()
        if counts
    ]


def _chunks(chain: str, tags: Any) -> list[tuple[str, str]]:
    """A chain in lines of sixty residues, each with the tags below it."""
    below = tags if isinstance(tags, str) and len(tags) == len(chain) else ""
    return [(chain[at : at + _PIECE], below[at : at + _PIECE]) for at in range(0, len(chain), _PIECE)]
