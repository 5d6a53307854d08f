"""From a request to what the inference role is asked, and from its answer to the reply. Runs in threads."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import Conflict, NotFound, Unprocessable
from app.inference.items import Item, RowRef, read_item
from app.inference.rows import read_row
from app.jobs import artifacts, reading
from app.jobs import service as jobs
from app.jobs.states import LIVE, Status
from app.models import service as models
from app.platform import Platform, read_scope
from app.search.rows import read_rows
from app.search.schemas import SearchRequest
from ssl_core.modalities import MODALITIES

FILES = ("embeddings.parquet", "index.faiss", "index.json")
_NAMED = 20
PREVIEW_BYTES = 32 * 2**20
"""Of pictures and sounds that are sent to be made small; rows beyond it are answered without a preview."""


@dataclass(frozen=True)
class Found:
    """What the database says: which vectors are searched, and where the rows lie that will be shown."""

    job_id: str
    pooling: str
    files: list[dict[str, Any]]
    model_id: str
    digest: str
    modality: str
    """Which the model reads."""
    own: str
    """Which the dataset is of."""
    rows: list[datasets.StoredFile]
    asked: tuple[str, list[datasets.StoredFile]] | None
    """Modality and files of the dataset that the query is a row of, where that is another."""


def look_up(platform: Platform, project_id: str, dataset_id: str, request: SearchRequest) -> tuple[Found, Item | None]:
    """One short read of the database; and the query, checked as far as can be told without the model.

    Raises:
        NotFound: the dataset.
        Conflict: 409 `not_ready`, `dataset_invalid`, `not_embedded`.
        Unprocessable: `invalid_query`, `model_required`, `not_found`, and those of an input at the embeddings endpoint.
    """
    with read_scope(platform) as session:
        dataset = datasets.usable(session, project_id, dataset_id)
        if (request.query is None) == (request.vector is None):
            raise Unprocessable("invalid_query", "Give either `query` or `vector`.", "query")
        query = None if request.query is None else read_item(request.query, "query")
        job = jobs.get(session, project_id, _embedding(session, project_id, dataset_id, request.model))
        model = models.get(session, project_id, job.resolved_spec["model"])
        kept = {file.path.removeprefix(artifacts.ARTIFACT): file for file in artifacts.result_files(session, job)}
        files = [{"path": path, "size": kept[path].size, "sha256": kept[path].sha256} for path in FILES if path in kept]
        asked = None
        if isinstance(query, RowRef) and query.dataset != dataset_id:
            about = datasets.facts(session, project_id, query.dataset, query.param)
            asked = (about.modality, _row_files(session, query.dataset))
        found = Found(
            job.id, job.resolved_spec["pooling"], files, model.id, model.digest, str(model.config["modality"]["name"]),
            dataset.modality or "", _row_files(session, dataset_id), asked,
        )  # fmt: skip
    return found, query


def order(platform: Platform, found: Found, query: Item | None, request: SearchRequest) -> bytes:
    """The body for the role's `/search`. Raises Unprocessable `wrong_modality` or `row_not_found`."""
    asked: dict[str, Any]
    if query is None:
        asked = {"vector": request.vector}
    elif isinstance(query, RowRef) and found.asked is None:
        asked = {"row": query.row}
    else:
        item = _row(platform, found, query) if isinstance(query, RowRef) else query
        model = {"model_id": found.model_id, "digest": found.digest, "pooling": found.pooling}
        asked = {"query": {**model, "items": [item]}}
    label = None if request.filter is None else request.filter.label
    wanted = {"limit": request.limit, "exact": request.exact, "label": label}
    return to_json({"job_id": found.job_id, "files": found.files, **asked, **wanted})


def contents(
    platform: Platform, found: Found, answer: dict[str, Any], request: SearchRequest
) -> dict[int, dict[str, Any]]:
    """`source`, `label`, and the content where it is to be shown, of the rows of an answer."""
    columns = [*MODALITIES[found.own].columns] if request.preview else []
    wanted = [each["row"] for each in answer["results"]]
    return read_rows(platform.store, found.rows, columns, wanted, PREVIEW_BYTES)


def preview_order(found: Found, rows: dict[int, dict[str, Any]]) -> tuple[list[int], bytes] | None:
    """Row numbers and the body for the role's `/preview`; None where nothing has to be decoded to be shown."""
    columns = MODALITIES[found.own].columns
    media = [name for name, column in columns.items() if column.media]
    shown = [number for number, row in rows.items() if media and columns.keys() <= row.keys()]
    items = [
        {name: base64.b64encode(rows[number][name]).decode() if one.media else rows[number][name]
         for name, one in columns.items()}
        for number in shown
    ]  # fmt: skip
    return (shown, to_json({"modality": found.own, "items": items})) if items else None


def reply(
    found: Found, answer: dict[str, Any], rows: dict[int, dict[str, Any]], previews: dict[int, Any]
) -> bytes:
    """The reply as JSON."""
    columns = MODALITIES[found.own].columns
    data = []
    for each in answer["results"]:
        row = rows.get(each["row"], {})
        plain = {name: row[name] for name, one in columns.items() if name in row and not one.media}
        lone = plain if plain and len(plain) == len(columns) else None
        data.append({
            "object": "search.result", "row": each["row"], "source": row.get("source"), "label": row.get("label"),
            "score": each["score"], "preview": previews.get(each["row"], lone),
        })  # fmt: skip
    usage = {"prompt_tokens": answer["tokens"], "total_tokens": answer["tokens"]}
    about = {"model": found.model_id, "job": found.job_id, "index": answer["index"], "usage": usage}
    return to_json({"object": "list", "data": data, **about})


def _embedding(session: Session, project_id: str, dataset_id: str, model_id: str | None) -> str:
    """The newest `embed` job of this dataset that succeeded, of this model or of the only one that has any."""
    if model_id is not None:
        try:
            models.get(session, project_id, model_id)
        except NotFound:
            raise Unprocessable("not_found", f"No model with id {model_id!r}.", "model") from None

    def jobs_of(statuses: Iterable[Status]) -> dict[str, str]:
        found = reading.embeddings(session, project_id, dataset_id, statuses)
        return {model: job for model, job in found.items() if model_id in (None, model)}

    usable = {model: job for model, job in jobs_of([Status.SUCCEEDED]).items() if _is_here(session, project_id, model)}
    if len(usable) > 1:
        words = f"Several models have embedded this dataset; name one in `model`: {', '.join([*usable][:_NAMED])}."
        raise Unprocessable("model_required", words, "model")
    if not usable:
        raise _not_embedded(dataset_id, model_id, next(iter(jobs_of(LIVE).values()), ""))
    return next(iter(usable.values()))


def _not_embedded(dataset_id: str, model_id: str | None, waiting: str) -> Conflict:
    who = "This model has not" if model_id else "No model has"
    words = f"{who} embedded dataset {dataset_id} yet: "
    body = f'{{"type": "embed", "dataset": "{dataset_id}", "model": "{model_id or "mdl_…"}"}}'
    words += f"wait for job {waiting}." if waiting else f"POST /v1/jobs {body}, and wait for it."
    return Conflict("not_embedded", words, "model" if model_id else "id")


def _is_here(session: Session, project_id: str, model_id: str) -> bool:
    with suppress(NotFound):
        return bool(models.get(session, project_id, model_id))
    return False


def _row_files(session: Session, dataset_id: str) -> list[datasets.StoredFile]:
    files = datasets.digest_and_files(session, dataset_id)[1]
    return [file for file in files if file["path"].startswith("rows-")]


def _row(platform: Platform, found: Found, ref: RowRef) -> dict[str, Any]:
    """The content of a row of another dataset, of which the model may read some columns."""
    assert found.asked is not None
    modality, files = found.asked
    reader, columns = MODALITIES[found.modality], MODALITIES[modality].columns
    if modality != found.modality and not (reader.partial and columns.keys() <= reader.columns.keys()):
        words = f"`{ref.param}` is a row of a dataset of modality {modality}; this model reads {found.modality}."
        raise Unprocessable("wrong_modality", words, ref.param)
    return read_row(platform.store, files, modality, ref.row, ref.param)
