"""From a request to what the inference role is asked, and from its answer to the reply. Runs in threads."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from app.datasets import service as datasets
from app.errors import Conflict, NotFound, Unprocessable
from app.inference.items import Item, RowRef, read_input
from app.inference.rows import read_row
from app.inference.schemas import EmbeddingRequest, PredictionRequest
from app.jobs import service as jobs
from app.jobs.states import LIVE
from app.models import service as models
from app.platform import Platform, read_scope
from ssl_core.objectives import OBJECTIVES
from ssl_core.requests.replies import embedding_body, prediction_body


@dataclass(frozen=True)
class Known:
    """What the database says: which model, and where the rows that were named lie."""

    model_id: str
    digest: str
    config: dict[str, Any]
    rows: dict[str, tuple[str, list[datasets.StoredFile]]]
    """By dataset: its modality and its row files."""


def embedding_order(platform: Platform, project_id: str, request: EmbeddingRequest) -> bytes:
    """The body for the role's `/embed`. Raises NotFound, Unprocessable or Conflict, naming the field."""
    items = read_input(request.input)
    known = _look_up(platform, project_id, request.model, items)
    if request.dimensions is not None and request.dimensions > known.config["embed_dim"]:
        words = f"`dimensions` must be from 1 to {known.config['embed_dim']} for this model."
        raise Unprocessable("out_of_range", words, "dimensions")
    asked = {"pooling": request.pooling, "dimensions": request.dimensions}
    return to_json(_order(platform, known, items) | asked)


def prediction_order(platform: Platform, project_id: str, request: PredictionRequest) -> bytes:
    """The body for the role's `/predict`. Raises as `embedding_order`, and Unprocessable `no_task`."""
    items = read_input(request.input)
    known = _look_up(platform, project_id, request.model, items)
    writes = None
    if known.config.get("task") is None:
        writes = OBJECTIVES[known.config["objective"]["name"]].completes if known.config.get("objective") else None
        if writes is None:
            words = f"Model {known.model_id} is an encoder without a task; fine-tune it first, or ask for embeddings."
            raise Unprocessable("no_task", words, "model")
    if request.sampling is not None and writes != "continuation":
        words = "`sampling` is for models that were pretrained on next tokens and have no task; leave it out."
        raise Unprocessable("not_for_this_model", words, "sampling")
    drawing = {} if writes is None else {"sampling": request.sampling, "seed": request.seed}
    return to_json(_order(platform, known, items) | drawing)


def embedding_reply(request: EmbeddingRequest, answer: dict[str, Any]) -> bytes:
    """The OpenAI shape as JSON."""
    raw = base64.b64decode(answer["vectors"])
    body = embedding_body(request.model, raw, answer["dim"], request.encoding_format, answer["tokens"])
    return to_json(body)


def prediction_reply(request: PredictionRequest, answer: dict[str, Any]) -> bytes:
    """One prediction for each input as JSON."""
    return to_json(prediction_body(request.model, answer["answers"], answer["tokens"]))


def _look_up(platform: Platform, project_id: str, model_id: str, items: list[Item]) -> Known:
    """One short read of the database; nothing of it is held afterwards."""
    refs: dict[str, str] = {}
    for item in items:
        if isinstance(item, RowRef):
            refs.setdefault(item.dataset, item.param)
    with read_scope(platform) as session:
        try:
            if model_id.startswith("job_"):
                _refuse_unfinished(jobs.get(session, project_id, model_id).status, model_id)
            model = models.get(session, project_id, model_id)
        except NotFound:
            raise NotFound("model", model_id, "model") from None
        rows = {}
        for dataset, param in refs.items():
            about = datasets.facts(session, project_id, dataset, param)
            files = datasets.digest_and_files(session, dataset)[1]
            rows[dataset] = (about.modality, [file for file in files if file["path"].startswith("rows-")])
    return Known(model.id, model.digest, model.config, rows)


def _refuse_unfinished(status: str, job_id: str) -> None:
    """A job's id in place of a model's: say whether waiting helps."""
    if status in LIVE:
        raise Conflict("not_ready", f"Job {job_id} has not made its model yet; its `result` will name it.", "model")


def _order(platform: Platform, known: Known, items: list[Item]) -> dict[str, Any]:
    modality = known.config["modality"]["name"]
    read = [_read(platform, known, item, modality) if isinstance(item, RowRef) else item for item in items]
    return {"model_id": known.model_id, "digest": known.digest, "items": read}


def _read(platform: Platform, known: Known, ref: RowRef, modality: str) -> dict[str, Any]:
    found, files = known.rows[ref.dataset]
    if found != modality:
        words = f"`{ref.param}` is a row of a dataset of modality {found}; this model reads {modality}."
        raise Unprocessable("wrong_modality", words, ref.param)
    return read_row(platform.store, files, found, ref.row, ref.param)

