"""Embedding several requests at once: those of one model are read together and computed together, and each gets its
own answer or its own error."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import structlog

from ssl_core.errors import EngineError
from ssl_core.inference import Item, LoadedModel
from ssl_core.samples import Sample
from worker.inference_batcher import Batcher, Work
from worker.inference_errors import InferenceError, Refused
from worker.inference_models import ModelCache
from worker.inference_requests import EmbedRequest
from worker.loading import outcome

log = structlog.get_logger()
_THREADS = 16
_SMALL = 64
"""Items that are put into words on the event loop: a thread would cost more."""


@dataclass(frozen=True)
class Vectors:
    """The answer to one request: (n, `dim`) float32 as base64, and tokens read. `precision` tells of other than
    float32."""

    dim: int
    vectors: str
    tokens: int
    precision: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """As docs/contracts.md §6 has it."""
        told = {"dim": self.dim, "vectors": self.vectors, "tokens": self.tokens}
        return told if self.precision is None else {**told, "precision": self.precision}


Answer = Vectors | InferenceError


@dataclass(frozen=True)
class _Part:
    """One request that was read: its number among all, and its samples."""

    number: int
    order: EmbedRequest
    samples: list[Sample]


@dataclass(frozen=True)
class _Group:
    """Requests that are computed as one."""

    model: LoadedModel
    parts: list[_Part]

    def work(self) -> Work:
        """What the batcher takes."""
        order = self.parts[0].order
        samples = [sample for part in self.parts for sample in part.samples]
        kind = (id(self.model), "embed", order.pooling, order.precision)
        compute = partial(self.model.embed, pooling=order.pooling, precision=order.precision)
        return Work(kind, compute, samples, [sample.cost for sample in samples], self.model.batch_tokens)

    def answers(self, vectors: Sequence[Any]) -> list[tuple[int, Vectors]]:
        """By request number, from the vectors of all samples."""
        stacked, first, found = np.stack(vectors), 0, []
        for part in self.parts:
            last = first + len(part.samples)
            found.append((part.number, _vectors(self.model, part, stacked[first:last])))
            first = last
        return found


class Embedder:
    """Reads, computes and answers."""

    def __init__(self, models: ModelCache[LoadedModel], batcher: Batcher) -> None:
        self._models, self._batcher = models, batcher
        self._threads = ThreadPoolExecutor(_THREADS, "embed")

    async def answers(self, orders: Sequence[EmbedRequest]) -> list[Answer]:
        """One for each request, in their order."""
        loop = asyncio.get_running_loop()
        answers: dict[int, Answer] = {}
        models = await self._asked(orders)
        groups = await loop.run_in_executor(self._threads, self._read, orders, models, answers)
        await asyncio.gather(*(self._compute(group, answers) for group in groups))
        return [answers[number] for number in range(len(orders))]

    async def _asked(self, orders: Sequence[EmbedRequest]) -> dict[str, LoadedModel | Exception]:
        """The models of all requests by digest, or why there is none. All are loaded at once."""
        slots = {order.digest: self._models.ask(order.model_id, order.digest) for order in orders}
        found: dict[str, LoadedModel | Exception] = {}
        for digest, slot in slots.items():
            try:
                model = await outcome(slot)
            except Exception as error:
                found[digest] = error
            else:
                found[digest] = model
        return found

    def _read(
        self, orders: Sequence[EmbedRequest], models: dict[str, LoadedModel | Exception], answers: dict[int, Answer]
    ) -> list[_Group]:
        """Requests by model, pooling and precision. Those that are refused have their answer then."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number, order in enumerate(orders):
            alike.setdefault((order.model_id, order.digest, order.pooling, order.precision), []).append(number)
        groups = []
        for numbers in alike.values():
            parts: list[_Part] = []
            try:
                model = self._opened(orders[numbers[0]], models)
                parts = self._parts(model, orders, numbers, answers)
            except Exception as error:
                answers |= dict.fromkeys(numbers, _told(error))
            if parts:
                groups.append(_Group(model, parts))
        return groups

    def _opened(self, order: EmbedRequest, models: dict[str, LoadedModel | Exception]) -> LoadedModel:
        model = models[order.digest]
        if isinstance(model, Exception):
            raise model
        model.check_pooling(order.pooling)
        if order.precision == "int8":
            size = model.size_bytes
            model.quantise(order.pooling)
            if model.size_bytes > size:
                self._models.make_room(0, keep=order.digest)
        return model

    def _parts(
        self, model: LoadedModel, orders: Sequence[EmbedRequest], numbers: list[int], answers: dict[int, Answer]
    ) -> list[_Part]:
        """All items of the requests in one go; one by one where that fails, so that only the one at fault is told."""
        good: dict[int, list[Item]] = {}
        for number in numbers:
            try:
                _check_dimensions(orders[number].dimensions, model.embed_dim)
                good[number] = [item.item(at) for at, item in enumerate(orders[number].items)]
            except InferenceError as error:
                answers[number] = error
        try:
            samples = iter(model.read([item for items in good.values() for item in items]) if good else [])
        except EngineError:
            return self._one_by_one(model, orders, good, answers)
        return [_Part(number, orders[number], [next(samples) for _ in items]) for number, items in good.items()]

    def _one_by_one(
        self, model: LoadedModel, orders: Sequence[EmbedRequest], good: dict[int, list[Item]],
        answers: dict[int, Answer],
    ) -> list[_Part]:  # fmt: skip
        parts = []
        for number, items in good.items():
            try:
                parts.append(_Part(number, orders[number], model.read(items)))
            except EngineError as error:
                answers[number] = _told(error)
        return parts

    async def _compute(self, group: _Group, answers: dict[int, Answer]) -> None:
        try:
            vectors = await asyncio.wrap_future(self._batcher.submit(group.work()))
            if len(vectors) <= _SMALL:
                answers |= dict(group.answers(vectors))
            else:
                loop = asyncio.get_running_loop()
                answers |= dict(await loop.run_in_executor(self._threads, group.answers, vectors))
        except Exception as error:
            answers |= {part.number: _told(error) for part in group.parts}


def _told(error: Exception) -> InferenceError:
    """What the caller learns of it."""
    if isinstance(error, InferenceError):
        return error
    if isinstance(error, EngineError):
        return Refused(422, error.code, error.message, error.param)
    log.error("inference_failed", verb="embed", error=repr(error))
    return InferenceError(500, "internal_error", "Inference failed at this request.")


def _check_dimensions(dimensions: int | None, embed_dim: int) -> None:
    if dimensions is not None and dimensions > embed_dim:
        words = f"dimensions must be from 1 to {embed_dim} for this model, not {dimensions}"
        raise Refused(422, "invalid_dimensions", words, "dimensions")


def _vectors(model: LoadedModel, part: _Part, vectors: Any) -> Vectors:
    order = part.order
    if order.dimensions is not None:
        vectors = vectors[:, : order.dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    text = base64.b64encode(np.ascontiguousarray(vectors, dtype="<f4").tobytes()).decode()
    told = None
    if order.precision == "int8":
        near = model.quantise(order.pooling).near(order.pooling)
        told = {"name": "int8", "cosine": round(near.cosine, 5), "rows": near.rows}
    return Vectors(vectors.shape[1], text, sum(sample.tokens for sample in part.samples), told)
