"""Jobs that ask a model about every row of a dataset: `predict` for answers, `embed` for vectors.

Rows go through `ssl_core.inference`, as the items of a request do, so that both say the same of the same row. Needs
torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core import distributed, inference, vector_index
from ssl_core.context import RunContext, Stopped
from ssl_core.data import rows
from ssl_core.durable import committed
from ssl_core.errors import DataError, SpecError
from ssl_core.evaluation_spec import EmbedSpec, PredictSpec
from ssl_core.modalities import MODALITIES
from ssl_core.modalities.base import Modality
from ssl_core.spec import RunOrder

_ROWS = 256
_TELL_SECONDS = 1.0


def predict(order: RunOrder, spec: PredictSpec, context: RunContext) -> dict[str, Any]:
    """Leave `predictions.jsonl`: a line for each row with its number, its source and the task's answer.

    Raises:
        SpecError: `no_task`, `unresolved`.
        CheckpointError: `invalid_model`.
        DataError: the dataset's folder is damaged, or a row cannot be read; `param` is the row.
        Stopped: asked to leave; nothing is kept.
    """
    model = _opened(order)
    model.check_task()
    with (
        committed(context.workdir / "artifact") as folder,
        (folder / "predictions.jsonl").open("w", encoding="utf-8") as file,
    ):
        for some in _told(Path(order.datasets[spec.dataset]), model.modality, "predicting", context):
            with _named(some):
                answers = model.predict(some.items)
            for at, (source, answer) in enumerate(zip(some.sources, answers, strict=True)):
                file.write(json.dumps({"row": some.first + at, "source": source, **answer}, allow_nan=False) + "\n")
    return {"status": "succeeded", "metrics": {}, "summary": {}}


def embed(order: RunOrder, spec: EmbedSpec, context: RunContext) -> dict[str, Any]:
    """Leave `embeddings.parquet`: `row`, `source`, `label`, and `embedding`, D float32 as the encoder made them, or of
    length 1 where the spec says so; of many rows `index.faiss` and `index.json` too (`ssl_core.vector_index`).

    Raises:
        SpecError: `unsupported_pooling`, `unresolved`.
        CheckpointError, DataError, Stopped: as `predict`.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    model = _opened(order)
    model.check_pooling(spec.pooling)
    vector = pyarrow.list_(pyarrow.float32(), model.embed_dim)
    told = [("row", pyarrow.int64()), ("source", pyarrow.string()), ("label", pyarrow.string())]
    schema = pyarrow.schema([*told, ("embedding", vector)])

    def rows_of(some: _Some) -> pyarrow.Table:
        with _named(some):
            found = model.embed(some.items, spec.pooling)
        if spec.normalize:
            found = vector_index.unit(found)
        vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(found.ravel()), model.embed_dim)
        numbers = pyarrow.array(range(some.first, some.first + len(some.items)), pyarrow.int64())
        texts = [pyarrow.array(each, pyarrow.string()) for each in (some.sources, some.labels)]
        return pyarrow.Table.from_arrays([numbers, *texts, vectors], schema=schema)

    with committed(context.workdir / "artifact") as folder:
        path = folder / "embeddings.parquet"
        with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=["label"]) as file:
            for some in _told(Path(order.datasets[spec.dataset]), model.modality, "embedding", context):
                file.write_table(rows_of(some))
        metrics = _indexed(path, folder, spec, context)
    return {"status": "succeeded", "metrics": metrics, "summary": {}}


def _indexed(path: Path, folder: Path, spec: EmbedSpec, context: RunContext) -> dict[str, float]:
    """Make the index where there are many rows; what is measured of it."""
    import pyarrow.parquet as parquet
    import torch

    rows = int(parquet.read_metadata(path).num_rows)
    if rows < spec.index_from:
        return {}
    context.emit("stage", stage="indexing")

    def told(done: int, total: int) -> None:
        context.emit("progress", stage="indexing", step=done, total_steps=total)
        _leave_if_asked(context)

    about = vector_index.build(path, folder, told, torch.get_num_threads())
    if about["recall_at_10"] < vector_index.LEAST_RECALL:
        words = (
            f"an index would find {about['recall_at_10']:.2f} of the ten nearest rows, so none is kept: "
            "searches look at every row"
        )
        context.emit("message", level="warning", code="not_indexed", message=words)
    return {"index/recall_at_10": about["recall_at_10"]}


def _opened(order: RunOrder) -> inference.LoadedModel:
    if order.model is None:
        raise SpecError("unresolved", "the job needs a model", "model")
    return inference.load(Path(order.model), str(distributed.device()))


@dataclass(frozen=True)
class _Some:
    """Rows `first`, `first + 1`, …: what a model reads of each, where it came from, and its label."""

    first: int
    items: list[Any]
    sources: list[str]
    labels: list[str | None]


def _told(dataset: Path, modality: Modality, stage: str, context: RunContext) -> Iterator[_Some]:
    """Some rows at a time, telling how far it is."""
    about = rows.profile(dataset)
    total, start, next_word = int(about.get("rows", 0)), 0, 0.0
    read = MODALITIES[about["modality"]].columns if modality.partial else modality.columns
    columns = [name for name in modality.columns if name in read]
    context.emit("stage", stage=stage)
    began = time.monotonic()
    for batch in rows.batches(dataset, [*columns, "source", "label"], _ROWS):
        sources = batch["source"]
        items = [_item({name: batch[name][at] for name in columns}) for at in range(len(sources))]
        yield _Some(start, items, sources, batch["label"])
        start += len(sources)
        if time.monotonic() >= next_word or start >= total:
            next_word = time.monotonic() + _TELL_SECONDS
            pace = start / max(1e-9, time.monotonic() - began)
            left = max(0, total - start) / max(1e-9, pace)
            context.emit(
                "progress", stage=stage, step=start, total_steps=max(total, start), examples_per_second=pace,
                eta_seconds=left,
            )  # fmt: skip
        _leave_if_asked(context)


def _leave_if_asked(context: RunContext) -> None:
    reason = context.should_stop()
    if reason is not None:
        raise Stopped(reason)


def _item(content: dict[str, Any]) -> Any:
    """As a request would send it: a lone value, or a mapping of several columns."""
    return next(iter(content.values())) if len(content) == 1 else content


@contextmanager
def _named(some: _Some) -> Iterator[None]:
    """A fault of one item, `input[3]` of some, is told by the row it stands in."""
    try:
        yield
    except DataError as error:
        inside = error.param or ""
        at = int(inside[6:-1]) if inside.startswith("input[") and inside.endswith("]") else None
        if at is None:
            raise
        words = f"row {some.first + at} ({some.sources[at]}): {error.message}"
        raise DataError(error.code, words, f"rows[{some.first + at}]") from error
