"""Answers to requests of a file, with one model in memory. Needs torch.

A request is read on its own, so that a fault is its own; what many requests ask for is computed together.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from ssl_core.completion import Completer
from ssl_core.errors import DataError, EngineError, SpecError
from ssl_core.inference import Item, LoadedModel
from ssl_core.modalities import COLUMNS
from ssl_core.requests.items import RowRef, is_single, read_input
from ssl_core.requests.lines import Request
from ssl_core.requests.refusals import refusal
from ssl_core.requests.replies import embedding_body, prediction_body
from ssl_core.requests.shapes import EmbeddingRequest, PredictionRequest
from ssl_core.sampling import Sampling


@dataclass(frozen=True)
class Work:
    """A request, read.

    Attributes:
        key: requests with equal keys are computed together.
        compute: the answers to some of `items`.
        items: as the model reads them.
        costs: of each, in tokens.
        tokens: that are read.
        reply: the body, of the answers.
    """

    key: tuple[Any, ...]
    compute: Callable[[list[Any]], Sequence[Any]]
    items: list[Any]
    costs: list[int]
    tokens: int
    reply: Callable[[Sequence[Any]], dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a request came to: 200 and the reply's body, or 422 and the envelope of its error."""

    request: Request
    status: int
    body: dict[str, Any]
    tokens: int


def check_model(model: LoadedModel, endpoint: str) -> None:
    """Raises SpecError `no_task` where the model has no answers for this endpoint."""
    if endpoint == "/v1/predictions" and model.completer is None:
        model.check_task()


def answer(model: LoadedModel, endpoint: str, requests: Sequence[Request]) -> list[Answer]:
    """Answers to all of these requests, in their order."""
    read = embedding if endpoint == "/v1/embeddings" else prediction
    works: list[tuple[Request, Work]] = []
    told: dict[int, Answer] = {}
    for request in requests:
        try:
            works.append((request, read(model, request.body)))
        except EngineError as error:
            told[request.line] = Answer(request, 422, _envelope(error, request.body), 0)
    bodies = _computed([work for _, work in works], model.batch_tokens)
    for (request, work), body in zip(works, bodies, strict=True):
        told[request.line] = Answer(request, 200, body, work.tokens)
    return [told[request.line] for request in requests]


def embedding(model: LoadedModel, body: dict[str, Any]) -> Work:
    """A body of `/v1/embeddings`. Raises EngineError, naming the field."""
    asked = _read(EmbeddingRequest, body)
    model.check_pooling(asked.pooling)
    if asked.dimensions is not None and asked.dimensions > model.embed_dim:
        words = f"`dimensions` must be from 1 to {model.embed_dim} for this model."
        raise SpecError("out_of_range", words, "dimensions")
    samples = model.read(_items(asked.input))
    tokens = sum(sample.tokens for sample in samples)
    compute: Callable[[list[Any]], Any] = partial(model.embed, pooling=asked.pooling)
    return Work(
        ("embed", asked.pooling), compute, samples, [sample.cost for sample in samples], tokens,
        partial(_vectors, asked, tokens),
    )  # fmt: skip


def prediction(model: LoadedModel, body: dict[str, Any]) -> Work:
    """A body of `/v1/predictions`. Raises EngineError, naming the field."""
    asked = _read(PredictionRequest, body)
    if asked.sampling is not None and model.completes != "continuation":
        words = "`sampling` is for models that were pretrained on next tokens and have no task; leave it out."
        raise SpecError("not_for_this_model", words, "sampling")
    items = _items(asked.input)
    if model.completer is not None:
        return _completion(model, model.completer, asked, items)
    samples = model.read(items)
    tokens = sum(sample.tokens for sample in samples)
    costs = [sample.cost for sample in samples]
    reply = partial(_predictions, asked, tokens)
    return Work(("predict",), model.predict, samples, costs, tokens, reply)


def _completion(model: LoadedModel, completer: Completer, asked: PredictionRequest, items: list[Item]) -> Work:
    key: tuple[Any, ...] = ("fill",)
    compute: Callable[[list[Any]], Sequence[Any]] = completer.filled
    if model.completes == "fill":
        prompts = completer.to_fill(items)
    else:
        sampling = asked.sampling or Sampling()
        prompts = completer.to_continue(items, sampling, asked.seed)
        key, compute = ("continue", sampling), partial(completer.continued, sampling=sampling)
    tokens = sum(prompt.tokens for prompt in prompts)
    costs = [prompt.cost for prompt in prompts]
    return Work(key, compute, prompts, costs, tokens, partial(_predictions, asked, tokens))


def _computed(works: list[Work], budget: int) -> list[dict[str, Any]]:
    """The bodies, in order; equal kinds of work go through the model together, some tokens at a time."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for at, work in enumerate(works):
        groups.setdefault(work.key, []).append(at)
    bodies: list[dict[str, Any]] = [{}] * len(works)
    for members in groups.values():
        items = [item for at in members for item in works[at].items]
        costs = [cost for at in members for cost in works[at].costs]
        answers: list[Any] = []
        for start, end in _pieces(costs, budget):
            answers.extend(works[members[0]].compute(items[start:end]))
        start = 0
        for at in members:
            end = start + len(works[at].items)
            bodies[at] = works[at].reply(answers[start:end])
            start = end
    return bodies


def _pieces(costs: list[int], budget: int) -> list[tuple[int, int]]:
    """Spans of items whose costs come to about the budget."""
    spans, start, spent = [], 0, 0
    for at, cost in enumerate(costs):
        if at > start and spent + cost > budget:
            spans.append((start, at))
            start, spent = at, 0
        spent += cost
    return [*spans, (start, len(costs))]


def _read(shape: type[Any], body: dict[str, Any]) -> Any:
    try:
        asked: BaseModel = shape.model_validate(body)
    except ValidationError as error:
        raise refusal([{**each, "loc": ("body", *each["loc"])} for each in error.errors()], body) from None
    return asked


def _items(given: Any) -> list[Item]:
    items: list[Item] = []
    for number, item in enumerate(read_input(given)):
        if isinstance(item, RowRef):
            words = "Rows of a dataset cannot be named in a batch; a job of type `embed` or `predict` reads them all."
            raise SpecError("not_in_a_batch", words, item.param)
        items.append(_item(item, f"input[{number}]"))
    return items


def _item(sent: dict[str, Any], where: str) -> Item:
    tokens = sent.get("tokens")
    if isinstance(tokens, list):
        return tokens
    content = {name: _content(name, value, where) for name, value in sent.items()}
    return content if len(content) > 1 else next(iter(content.values()))


def _content(name: str, value: str, where: str) -> str | bytes:
    try:
        return base64.b64decode(value, validate=True) if COLUMNS[name].media else value
    except ValueError as error:
        raise DataError("invalid_input", f"`{where}`: its {name} is not base64.", where) from error


def _vectors(asked: EmbeddingRequest, tokens: int, rows: Sequence[Any]) -> dict[str, Any]:
    stacked = np.stack(rows)
    if asked.dimensions is not None:
        stacked = stacked[:, : asked.dimensions]
        stacked = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
    raw = np.ascontiguousarray(stacked, dtype="<f4").tobytes()
    return embedding_body(asked.model, raw, stacked.shape[1], asked.encoding_format, tokens)


def _predictions(asked: PredictionRequest, tokens: int, answers: Sequence[Any]) -> dict[str, Any]:
    return prediction_body(asked.model, answers, tokens)


def _envelope(error: EngineError, body: dict[str, Any]) -> dict[str, Any]:
    # Items are known by number only: an error about a single input says `input`, as it was sent.
    param = "input" if error.param == "input[0]" and is_single(body.get("input")) else error.param
    told = {"message": error.message, "type": "invalid_request_error", "param": param, "code": error.code}
    return {"error": told}
