"""From a request to what the inference role is asked, and from its answer to the reply.

What reads the database or the store, and what puts many vectors into words, runs in threads; the rest costs less than
the way there.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from app.datasets import service as datasets
from app.errors import Conflict, NotFound, TooLarge, Unprocessable
from app.inference.items import Item, RowRef, read_input
from app.inference.rows import read_row
from app.inference.schemas import EmbeddingRequest, PredictionRequest
from app.jobs import service as jobs
from app.jobs.states import LIVE
from app.models import recent
from app.models import service as models
from app.models.recent import Known
from app.platform import Platform, read_scope
from ssl_core import tracing
from ssl_core.objectives import OBJECTIVES
from ssl_core.requests.replies import embedding_body, prediction_body, usage

HEADER = "Groundwork-Precision"
_SHORT = 50_000
SMALL_ITEMS, SMALL_CHARACTERS = 8, 20_000
MAX_ROW_BYTES = 32 * 2**20
"""Of the rows of datasets that one request names, as they are sent on: no more than a body may have."""
_Rows = dict[str, tuple[str, list[datasets.StoredFile]]]
"""By dataset: its modality and its row files."""


@dataclass(frozen=True)
class Order:
    """What the inference role is asked.

    Attributes:
        body: of the post.
        model: the model's digest, for a small request, which may share a post with others; else empty.
    """

    body: bytes
    model: str = ""


def quick_order(project_id: str, request: EmbeddingRequest) -> Order | None:
    """As `embedding_order` where it takes neither the database nor long: a small request to a model that was asked a
    moment ago. None where it is another one."""
    known = recent.recall(project_id, request.model)
    if known is None or not _is_small(request.input):
        return None
    items = read_input(request.input)
    if any(isinstance(item, RowRef) for item in items):
        return None
    return Order(_embed_body(known, request, items), known.digest)


def embedding_order(platform: Platform, project_id: str, request: EmbeddingRequest) -> Order:
    """The body for the role's `/embed`. Raises NotFound, Unprocessable or Conflict, naming the field."""
    items = read_input(request.input)
    known, rows = _look_up(platform, project_id, request.model, items)
    read = _read_rows(platform, known, items, rows)
    small = _is_small(request.input) and not rows
    return Order(_embed_body(known, request, read), known.digest if small else "")


def _is_small(given: Any) -> bool:
    """Few items of which none is large: texts, or lists of tokens."""
    items = [given] if isinstance(given, str) else given
    if not isinstance(items, list) or len(items) > SMALL_ITEMS:
        return False
    return sum(len(item) if isinstance(item, str | list) else SMALL_CHARACTERS for item in items) < SMALL_CHARACTERS


def _embed_body(known: Known, request: EmbeddingRequest, items: Sequence[Item]) -> bytes:
    if request.dimensions is not None and request.dimensions > known.config["embed_dim"]:
        words = f"`dimensions` must be from 1 to {known.config['embed_dim']} for this model."
        raise Unprocessable("out_of_range", words, "dimensions")
    asked = {"pooling": request.pooling, "dimensions": request.dimensions, "precision": request.precision}
    trace = tracing.traceparent()
    return to_json(_order(known, items) | asked | ({} if trace is None else {"traceparent": trace}))


def prediction_order(platform: Platform, project_id: str, request: PredictionRequest) -> bytes:
    """The body for the role's `/predict`. Raises as `embedding_order`, and Unprocessable `no_task`."""
    items = read_input(request.input)
    known, rows = _look_up(platform, project_id, request.model, items)
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
    return to_json(_order(known, _read_rows(platform, known, items, rows)) | drawing)


def embedding_reply(request: EmbeddingRequest, answer: dict[str, Any]) -> bytes:
    """The OpenAI shape as JSON."""
    if request.encoding_format == "base64" and len(answer["vectors"]) == 4 * math.ceil(4 * answer["dim"] / 3):
        # The only one is already what is asked for.
        vector = {"object": "embedding", "index": 0, "embedding": answer["vectors"]}
        return to_json({"object": "list", "data": [vector], "model": request.model, "usage": usage(answer["tokens"])})
    raw = base64.b64decode(answer["vectors"])
    body = embedding_body(request.model, raw, answer["dim"], request.encoding_format, answer["tokens"])
    return to_json(body)


def precision_header(answer: dict[str, Any]) -> dict[str, str]:
    """What an answer in less than float32 says of itself."""
    told = answer.get("precision")
    return {} if told is None else {HEADER: f"{told['name']}; cosine={told['cosine']}; rows={told['rows']}"}


def is_short(answer: dict[str, Any]) -> bool:
    """Whether the reply is put together in less time than the way to a thread takes."""
    return len(answer["vectors"]) <= _SHORT


def prediction_reply(request: PredictionRequest, answer: dict[str, Any]) -> bytes:
    """One prediction for each input as JSON."""
    return to_json(prediction_body(request.model, answer["answers"], answer["tokens"]))


def _look_up(platform: Platform, project_id: str, model_id: str, items: list[Item]) -> tuple[Known, _Rows]:
    """The model, and where the rows that were named lie: one short read of the database, of which nothing is held."""
    refs: dict[str, str] = {}
    for item in items:
        if isinstance(item, RowRef):
            refs.setdefault(item.dataset, item.param)
    with read_scope(platform) as session:
        try:
            if model_id.startswith("job_"):
                _refuse_unfinished(jobs.get(session, project_id, model_id).status, model_id)
            known = models.known(session, project_id, model_id)
        except NotFound:
            raise NotFound("model", model_id, "model") from None
        rows = {}
        for dataset, param in refs.items():
            about = datasets.facts(session, project_id, dataset, param)
            files = datasets.digest_and_files(session, dataset)[1]
            rows[dataset] = (about.modality, [file for file in files if file["path"].startswith("rows-")])
    return known, rows


def _refuse_unfinished(status: str, job_id: str) -> None:
    """A job's id in place of a model's: say whether waiting helps."""
    if status in LIVE:
        raise Conflict("not_ready", f"Job {job_id} has not made its model yet; its `result` will name it.", "model")


def _order(known: Known, items: Sequence[Item]) -> dict[str, Any]:
    return {"model_id": known.model_id, "digest": known.digest, "items": items}


def _read_rows(platform: Platform, known: Known, items: list[Item], rows: _Rows) -> list[Item]:
    """The items, rows replaced by what they hold."""
    modality = known.config["modality"]["name"]
    read: dict[tuple[str, int], dict[str, Any]] = {}
    budget, found = MAX_ROW_BYTES, list[Item]()
    for item in items:
        if not isinstance(item, RowRef):
            found.append(item)
            continue
        row = read.get((item.dataset, item.row))
        if row is None:
            row = read[item.dataset, item.row] = _read(platform, item, rows, modality)
        # Counted each time: the role is sent it each time.
        budget -= sum(len(cell) for cell in row.values())
        if budget < 0:
            words = f"The rows up to `{item.param}` have more than {MAX_ROW_BYTES >> 20} MiB together; ask for fewer."
            raise TooLarge("input_too_large", words, item.param)
        found.append(row)
    return found


def _read(platform: Platform, ref: RowRef, rows: _Rows, modality: str) -> dict[str, Any]:
    found, files = rows[ref.dataset]
    if found != modality:
        words = f"`{ref.param}` is a row of a dataset of modality {found}; this model reads {modality}."
        raise Unprocessable("wrong_modality", words, ref.param)
    return read_row(platform.store, files, found, ref.row, ref.param)

