"""The inference role: `groundwork inference`. Only the API talks to it (docs/contracts.md §6).

A request is read (tokenized, decoded) in its own thread, computed in the batcher's, and answered from the event loop.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import structlog
import torch
import uvicorn
from anyio import to_thread
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssl_core import tracing
from ssl_core.completion import Completer
from ssl_core.errors import CheckpointError, EngineError
from ssl_core.hangups import Gone, while_listening
from ssl_core.inference import Item, LoadedModel, load
from ssl_core.machine import keep_freed_memory
from ssl_core.sampling import Sampling
from worker import logs
from worker.inference_batcher import Batcher, Work
from worker.inference_embeds import Embedder
from worker.inference_errors import Busy, InferenceError, Refused
from worker.inference_files import ModelFiles
from worker.inference_metrics import MEDIA_TYPE, Metrics
from worker.inference_models import ModelCache
from worker.inference_requests import AnswerRequest, EmbedRequest, ManyRequest
from worker.inference_settings import InferenceSettings
from worker.launch import LEAST_ABI, confine, landlock_abi
from worker.loading import outcome
from worker.sandbox import ground_of_inference
from worker.search import SearchDesk
from worker.search_requests import PreviewRequest, SearchRequest
from worker.search_vectors import VectorCache

log = structlog.get_logger()
MAX_BODY_BYTES = 64 * 2**20


class InferenceService:
    """The parts, put together; its methods are the routes."""

    def __init__(self, settings: InferenceSettings) -> None:
        token = settings.worker_token.get_secret_value()
        self._token = token.encode()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._requests = settings.inference_requests
        self._in_hand = 0
        self.files = ModelFiles(settings.models_dir, settings.api_url, token, settings.model_disk_bytes)
        self.models: ModelCache[LoadedModel] = ModelCache(self._open, settings.model_cache_bytes)
        self.files.in_use = self.models.digests
        self.batcher = Batcher(settings.inference_queue_tokens)
        self.embedder = Embedder(self.models, self.batcher)
        vectors = VectorCache(settings.vectors_dir, settings.api_url, token, settings.search_cache_bytes)
        self.desk = SearchDesk(vectors, self._embedded)
        gauges = {
            "in_hand": lambda: self._in_hand, "waiting_tokens": lambda: self.batcher.waiting,
            "model_bytes": lambda: self.models.held_bytes, "models": lambda: len(self.models.digests()),
            "vector_bytes": lambda: vectors.held_bytes,
        }  # fmt: skip
        self.metrics = Metrics(gauges)

    def close(self) -> None:
        """Compute what is queued, then let go of everything."""
        self.batcher.close()
        self.desk.close()
        self.models.close()
        self.files.close()

    async def embed(self, request: Request) -> Response:
        """`POST /embed`."""
        return await self._admit(request, self._embed)

    async def embed_many(self, request: Request) -> Response:
        """`POST /embed_many`: each request has its own answer, and none waits for what the others may be refused."""
        self._check_token(request)
        orders = _parse(await _body(request), ManyRequest).requests
        taken = orders[: max(0, self._requests - self._in_hand)]
        self._in_hand += len(taken)
        began = time.perf_counter()
        try:
            with ExitStack() as spans:
                for order in taken:
                    spans.enter_context(tracing.span("inference embed", "server", order.traceparent))
                answers = await self.embedder.answers(taken)
        finally:
            self._in_hand -= len(taken)
        seconds = time.perf_counter() - began
        busy = Busy("inference_busy", "Too many requests are in hand; try again.")
        replies = []
        for answer in [*answers, *[busy] * (len(orders) - len(taken))]:
            status = answer.status if isinstance(answer, InferenceError) else 200
            replies.append({"status": status, **answer.body()})
            self.metrics.answered("embed", status, seconds)
            if not isinstance(answer, InferenceError):
                self.metrics.computed("embed", answer.tokens)
        return Response(to_json({"replies": replies}), media_type="application/json")

    async def predict(self, request: Request) -> Response:
        """`POST /predict`."""
        return await self._admit(request, self._predict)

    async def search(self, request: Request) -> Response:
        """`POST /search`."""
        return await self._admit(request, self._search)

    async def preview(self, request: Request) -> Response:
        """`POST /preview`."""
        return await self._admit(request, self._preview)

    async def healthz(self, request: Request) -> Response:
        """`GET /healthz`: needs no token, says nothing of any tenant."""
        return JSONResponse({"status": "ok", "in_hand": self._in_hand, "model_bytes": self.models.held_bytes})

    async def measured(self, request: Request) -> Response:
        """`GET /metrics`: as `/healthz`, and for the same callers."""
        return Response(self.metrics.exposition(), media_type=MEDIA_TYPE)

    def _check_token(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._token):
            raise Refused(401, "invalid_token", "The worker token is missing or not valid.")

    async def _admit(self, request: Request, answer: Callable[[bytes], Awaitable[Response]]) -> Response:
        self._check_token(request)
        if self._in_hand >= self._requests:
            raise Busy("inference_busy", "Too many requests are in hand; try again.")
        self._in_hand += 1
        verb, began, status = request.url.path.strip("/"), time.perf_counter(), 0
        try:
            with tracing.span(f"inference {verb}", "server", request.headers.get(tracing.HEADER)):
                body = await _body(request)
                reply = await while_listening(request.receive, answer(body))
            status = reply.status_code
            return reply
        except Gone:
            return Response(status_code=499)  # which nobody reads
        except (InferenceError, EngineError) as error:
            status = error.status if isinstance(error, InferenceError) else 422
            raise
        except Exception:
            status = 500
            raise
        finally:
            self._in_hand -= 1
            self.metrics.answered(verb, status, time.perf_counter() - began)

    async def _embed(self, body: bytes) -> Response:
        order = await to_thread.run_sync(_parse, body, EmbedRequest)
        (answer,) = await self.embedder.answers([order])
        if isinstance(answer, InferenceError):
            raise answer
        self.metrics.computed("embed", answer.tokens)
        return JSONResponse(answer.body())

    async def _predict(self, body: bytes) -> Response:
        order: AnswerRequest = await to_thread.run_sync(_parse, body, AnswerRequest)
        model = await outcome(self.models.ask(order.model_id, order.digest))
        work = await to_thread.run_sync(_prepared, model, order)
        answers = await asyncio.wrap_future(self.batcher.submit(work))
        self.metrics.computed("predict", _tokens(work))
        return JSONResponse({"answers": answers, "tokens": _tokens(work)})

    async def _search(self, body: bytes) -> Response:
        answer = await self.desk.search(await to_thread.run_sync(_parse, body, SearchRequest))
        self.metrics.computed("search", answer["tokens"])
        return JSONResponse(answer)

    async def _preview(self, body: bytes) -> Response:
        return JSONResponse(await self.desk.preview(await to_thread.run_sync(_parse, body, PreviewRequest)))

    async def _embedded(self, order: EmbedRequest) -> tuple[Any, int]:
        """The vector of a request's first item, and its tokens."""
        (answer,) = await self.embedder.answers([order])
        if isinstance(answer, InferenceError):
            raise answer
        return np.frombuffer(base64.b64decode(answer.vectors), "<f4")[: answer.dim], answer.tokens

    def _open(self, model_id: str, digest: str) -> LoadedModel:
        folder = self.files.folder(model_id, digest)
        # Before the new weights are read, so that the bound holds while they are.
        self.models.make_room((folder / "model.safetensors").stat().st_size)
        try:
            model = load(folder, self._device, half=self._device == "cuda")
        except CheckpointError as error:
            words = f"The stored model cannot be opened: {error.message}."
            raise InferenceError(500, error.code, words, "model") from error
        self.metrics.loads.inc()
        log.info("model_loaded", model=model_id, digest=digest, bytes=model.size_bytes)
        return model


def _prepared(model: LoadedModel, order: AnswerRequest) -> Work:
    """Its items, read. Raises Refused or EngineError."""
    items = [item.item(number) for number, item in enumerate(order.items)]
    if model.completer is not None:
        return _completion(model, model.completer, order, items)
    model.check_task()
    samples = model.read(items)
    costs = [sample.cost for sample in samples]
    return Work((id(model), "predict"), model.predict, samples, costs, model.batch_tokens)


def _completion(model: LoadedModel, completer: Completer, order: AnswerRequest, items: list[Item]) -> Work:
    """The work of a language model without a task. Requests that draw alike share batches."""
    if model.completes == "fill":
        if order.sampling is not None:
            raise Refused(422, "not_for_this_model", "this model fills masks and draws nothing", "sampling")
        prompts = completer.to_fill(items)
        costs = [prompt.cost for prompt in prompts]
        return Work((id(model), "fill"), completer.filled, prompts, costs, model.batch_tokens)
    sampling = order.sampling or Sampling()
    prompts = completer.to_continue(items, sampling, order.seed)
    compute = partial(completer.continued, sampling=sampling)
    costs = [prompt.cost for prompt in prompts]
    return Work((id(model), "continue", sampling), compute, prompts, costs, model.batch_tokens)


def create_app(settings: InferenceSettings) -> Starlette:
    """The ASGI application."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(service.close)

    service = InferenceService(settings)
    routes = [
        Route("/embed", service.embed, methods=["POST"]),
        Route("/embed_many", service.embed_many, methods=["POST"]),
        Route("/predict", service.predict, methods=["POST"]),
        Route("/search", service.search, methods=["POST"]),
        Route("/preview", service.preview, methods=["POST"]),
        Route("/healthz", service.healthz, methods=["GET"]),
        Route("/metrics", service.measured, methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {
        InferenceError: _render, EngineError: _render_engine, HTTPException: _render_http, Exception: _render_bug,
    }  # fmt: skip
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


def main() -> None:
    """Serve until SIGTERM, then answer what is in hand and leave. A bad setting is one line and exit status 1 (B82)."""
    try:
        settings = InferenceSettings()
        logs.configure(settings.log_level)
        _confine(settings)
        tracing.configure("inference")
        app = create_app(settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        sys.exit(f"groundwork inference: GROUNDWORK_{str(first['loc'][0]).upper()}: {first['msg']}")
    except OSError as error:
        sys.exit(f"groundwork inference: {error.strerror}: {error.filename}")
    except ValueError as error:  # of the level of the log, or of what to trace to
        sys.exit(f"groundwork inference: {error}")
    keep_freed_memory()  # every batch asks for what the last one gave back
    if settings.inference_threads:
        torch.set_num_threads(settings.inference_threads)
    host, port = settings.address
    uvicorn.run(
        app, host=host, port=port, log_config=None, access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )  # fmt: skip


def _confine(settings: InferenceSettings) -> None:
    """Before there are threads: those that are begun later are bound with this one."""
    abi = landlock_abi()
    if settings.sandbox == "required" and abi < LEAST_ABI:
        sys.exit("groundwork inference: GROUNDWORK_SANDBOX is `required`, and this kernel has no Landlock")
    if settings.sandbox != "off" and abi >= LEAST_ABI:
        settings.models_dir.mkdir(parents=True, exist_ok=True)
        confine(**ground_of_inference(settings.models_dir, (settings.data_dir, settings.models_dir)))


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise Refused(413, "body_too_large", f"The body is over {MAX_BODY_BYTES} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


def _parse(body: bytes, shape: type[Any]) -> Any:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refused(422, "invalid_request", first["msg"], ".".join(map(str, first["loc"])) or None) from error


def _tokens(work: Work) -> int:
    return sum(sample.tokens for sample in work.samples)


async def _render(request: Request, error: InferenceError) -> Response:
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return JSONResponse(error.body(), error.status, headers)


async def _render_engine(request: Request, error: EngineError) -> Response:
    return await _render(request, Refused(422, error.code, error.message, error.param))


async def _render_http(request: Request, error: HTTPException) -> Response:
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    return await _render(request, Refused(error.status_code, code, f"No {request.method} {request.url.path} here."))


async def _render_bug(request: Request, error: Exception) -> Response:
    log.error("inference_failed", path=request.url.path, error=repr(error))
    return await _render(request, InferenceError(500, "internal_error", "Inference failed at this request."))


if __name__ == "__main__":
    main()
