"""The job `batch`: every request of a file, answered. Needs torch once the file is found to be good.

    output.jsonl   a line for each request that was answered
    errors.jsonl   a line for each that could not be

in the order of the file; a file without lines is not written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic_core import to_json

from ssl_core.context import RunContext, Stopped
from ssl_core.durable import committed
from ssl_core.errors import DataError, SpecError
from ssl_core.evaluation_spec import BatchSpec
from ssl_core.requests import lines
from ssl_core.requests.items import is_single
from ssl_core.requests.lines import Checker, Fault, Request
from ssl_core.requests.shapes import MAX_INPUTS
from ssl_core.spec import RunOrder

if TYPE_CHECKING:
    from ssl_core.requests.answers import Answer

OUTPUT, ERRORS = "output.jsonl", "errors.jsonl"
_AT_ONCE, _ITEMS_AT_ONCE, _BYTES_AT_ONCE = 64, MAX_INPUTS, 8 << 20
"""Requests, items in them and bytes of them that are answered together: no more than one request may hold of items,
whose vectors lie in memory as numbers of Python."""
_LOOK_EVERY = 1000
_TELL_SECONDS = 1.0
_STAGES = {"/v1/embeddings": "embedding", "/v1/predictions": "predicting"}


@dataclass
class _Tally:
    total: int
    completed: int = 0
    failed: int = 0
    tokens: int = 0

    def add(self, answer: Answer) -> None:
        self.tokens += answer.tokens
        if answer.status == 200:
            self.completed += 1
        else:
            self.failed += 1

    @property
    def metrics(self) -> dict[str, float]:
        counted = {"total": self.total, "completed": self.completed, "failed": self.failed, "tokens": self.tokens}
        return {f"batch/{name}": float(count) for name, count in counted.items()}


def run(order: RunOrder, spec: BatchSpec, context: RunContext) -> dict[str, Any]:
    """Check the whole file, then answer it.

    Raises:
        DataError: `invalid_batch`; each bad line was told as a message of level `error`.
        SpecError: `no_task`, `unresolved`.
        CheckpointError: `invalid_model`.
        Stopped: asked to leave; nothing is kept.
    """
    context.emit("stage", stage="validating")
    path = Path(order.datasets[spec.file])
    total = _checked(path, spec, context)
    if order.model is None:
        raise SpecError("unresolved", "the job needs a model", "model")
    import torch

    from ssl_core import distributed, inference
    from ssl_core.requests import answers

    if order.threads is not None:
        torch.set_num_threads(order.threads)
    model = inference.load(Path(order.model), str(distributed.device()))
    answers.check_model(model, spec.endpoint)
    tally = _Tally(total)
    context.emit("stage", stage=_STAGES[spec.endpoint])
    tell = _Teller(context, _STAGES[spec.endpoint])
    with committed(context.workdir / "artifact") as folder:
        with (folder / OUTPUT).open("wb") as output, (folder / ERRORS).open("wb") as errors:
            for some in _several(lines.requests(path)):
                _write(output, errors, tally, answers.answer(model, spec.endpoint, some))
                tell(tally)
                _leave_if_asked(context)
        for name in (OUTPUT, ERRORS):
            if not (folder / name).stat().st_size:
                (folder / name).unlink()
        context.emit("stage", stage="finalizing")
    return {"status": "succeeded", "metrics": tally.metrics, "summary": {}}


def _checked(path: Path, spec: BatchSpec, context: RunContext) -> int:
    """How many requests there are."""
    checker = Checker(spec.endpoint, spec.model)
    with path.open("rb") as file:
        for number, raw in lines.raw_lines(file):
            checker.look(number, raw)
            if checker.count % _LOOK_EVERY == 0:
                _leave_if_asked(context)
    checker.finish()
    if not checker.wrong:
        return checker.count
    for fault in checker.faults:
        context.emit(
            "message", level="error", code=fault.code, message=fault.message, line=fault.line, param=fault.param
        )
    raise DataError("invalid_batch", _summary(checker.faults[0], checker), "input_file_id")


def _summary(first: Fault, checker: Checker) -> str:
    where = "" if first.line is None else f"line {first.line}: "
    more = f" ({checker.wrong - 1} more of {checker.count} lines are wrong.)" if checker.wrong > 1 else ""
    return f"{where}{first.message}{more}"


def _several(each: Iterator[Request]) -> Iterator[list[Request]]:
    some: list[Request] = []
    items = size = 0
    for request in each:
        here = _items(request)
        if some and (len(some) == _AT_ONCE or items + here > _ITEMS_AT_ONCE or size + request.size > _BYTES_AT_ONCE):
            yield some
            some, items, size = [], 0, 0
        some.append(request)
        items, size = items + here, size + request.size
    if some:
        yield some


def _items(request: Request) -> int:
    """How many items a request has, which nobody has checked yet."""
    given = request.body.get("input")
    return len(given) if isinstance(given, list) and not is_single(given) else 1


def _write(output: BinaryIO, errors: BinaryIO, tally: _Tally, answers: list[Answer]) -> None:
    for answer in answers:
        tally.add(answer)
        request = answer.request
        response = {"status_code": answer.status, "request_id": f"req_{request.id}", "body": answer.body}
        line = {"id": f"batch_req_{request.id}", "custom_id": request.custom_id, "response": response, "error": None}
        (output if answer.status == 200 else errors).write(to_json(line) + b"\n")


class _Teller:
    """Says how far it is, about once a second and at the end."""

    def __init__(self, context: RunContext, stage: str) -> None:
        self._context, self._stage = context, stage
        self._began, self._next = time.monotonic(), 0.0

    def __call__(self, tally: _Tally) -> None:
        done, now = tally.completed + tally.failed, time.monotonic()
        if now < self._next and done < tally.total:
            return
        self._next = now + _TELL_SECONDS
        pace = done / max(1e-9, now - self._began)
        self._context.emit("metrics", step=done, values={"batch/failed": float(tally.failed)})
        self._context.emit(
            "progress", stage=self._stage, step=done, total_steps=tally.total, examples_per_second=pace,
            eta_seconds=(tally.total - done) / max(1e-9, pace),
        )  # fmt: skip


def _leave_if_asked(context: RunContext) -> None:
    reason = context.should_stop()
    if reason is not None:
        raise Stopped(reason)
