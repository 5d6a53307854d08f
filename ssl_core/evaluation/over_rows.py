"""Jobs that ask a model about every row of a dataset: `predict` for answers, `embed` for vectors.

Rows go through `ssl_core.inference`, as the items of a request do, so that both say the same of the same row. Needs
torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_core import distributed, inference
from ssl_core.context import RunContext, Stopped
from ssl_core.data import rows
from ssl_core.durable import committed
from ssl_core.errors import DataError, SpecError
from ssl_core.evaluation_spec import EmbedSpec, PredictSpec
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
        for start, sources, items in _told(Path(order.datasets[spec.dataset]), model.modality, "predicting", context):
            with _named(start, sources):
                answers = model.predict(items)
            for at, (source, answer) in enumerate(zip(sources, answers, strict=True)):
                file.write(json.dumps({"row": start + at, "source": source, **answer}, allow_nan=False) + "\n")
    return {"status": "succeeded", "metrics": {}, "summary": {}}


def embed(order: RunOrder, spec: EmbedSpec, context: RunContext) -> dict[str, Any]:
    """Leave `embeddings.parquet`: `row`, `source`, and `embedding`, D float32 as the encoder made them.

    Raises:
        SpecError: `unsupported_pooling`, `unresolved`.
        CheckpointError, DataError, Stopped: as `predict`.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    model = _opened(order)
    model.check_pooling(spec.pooling)
    vector = pyarrow.list_(pyarrow.float32(), model.embed_dim)
    schema = pyarrow.schema([("row", pyarrow.int64()), ("source", pyarrow.string()), ("embedding", vector)])
    with (
        committed(context.workdir / "artifact") as folder,
        parquet.ParquetWriter(folder / "embeddings.parquet", schema, compression="zstd") as file,
    ):
        for start, sources, items in _told(Path(order.datasets[spec.dataset]), model.modality, "embedding", context):
            with _named(start, sources):
                found = model.embed(items, spec.pooling)
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(found.ravel()), model.embed_dim)
            numbers = pyarrow.array(range(start, start + len(items)), pyarrow.int64())
            columns = [numbers, pyarrow.array(sources, pyarrow.string()), vectors]
            file.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
    return {"status": "succeeded", "metrics": {}, "summary": {}}


def _opened(order: RunOrder) -> inference.LoadedModel:
    if order.model is None:
        raise SpecError("unresolved", "the job needs a model", "model")
    return inference.load(Path(order.model), str(distributed.device()))


def _told(
    dataset: Path, modality: Modality, stage: str, context: RunContext
) -> Iterator[tuple[int, list[str], list[Any]]]:
    """(number of the first row, sources, items) of some rows at a time, telling how far it is."""
    total, start, next_word = int(rows.profile(dataset).get("rows", 0)), 0, 0.0
    context.emit("stage", stage=stage)
    began = time.monotonic()
    for batch in rows.batches(dataset, [*modality.columns, "source"], _ROWS):
        sources = batch.pop("source")
        items = [_item({name: batch[name][at] for name in modality.columns}) for at in range(len(sources))]
        yield start, sources, items
        start += len(sources)
        if time.monotonic() >= next_word or start >= total:
            next_word = time.monotonic() + _TELL_SECONDS
            pace = start / max(1e-9, time.monotonic() - began)
            left = max(0, total - start) / max(1e-9, pace)
            context.emit(
                "progress", stage=stage, step=start, total_steps=max(total, start), examples_per_second=pace,
                eta_seconds=left,
            )  # fmt: skip
        reason = context.should_stop()
        if reason is not None:
            raise Stopped(reason)


def _item(content: dict[str, Any]) -> Any:
    """As a request would send it: a lone value, or a mapping of several columns."""
    return next(iter(content.values())) if len(content) == 1 else content


@contextmanager
def _named(start: int, sources: list[str]) -> Iterator[None]:
    """A fault of one item, `input[3]` of some, is told by the row it stands in."""
    try:
        yield
    except DataError as error:
        inside = error.param or ""
        at = int(inside[6:-1]) if inside.startswith("input[") and inside.endswith("]") else None
        if at is None:
            raise
        words = f"row {start + at} ({sources[at]}): {error.message}"
        raise DataError(error.code, words, f"rows[{start + at}]") from error
