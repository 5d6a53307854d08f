"""Every row of a dataset through a model: the answers and vectors that a request would get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from ssl_core import inference
from ssl_core.context import MemoryContext, Stopped
from ssl_core.durable import fault_of
from ssl_core.errors import DataError, SpecError
from ssl_core.run import execute
from ssl_core.spec import JOB_SPEC, RunOrder
from tests.ssl_core import datasets
from tests.ssl_core.toys import TOYS


def trained(folder: Path, modality: str, data: Path, **more: Any) -> Path:
    """A small model, with a task or without."""
    suited = TOYS[modality].modality.model_dump(mode="json")
    shape = {"modality": suited, "backbone": TOYS[modality].backbone()}
    spec = {"dataset": "ds_toy", **shape, "batch_size": 8, "budget": {"steps": 2}, **more}
    datasets.order(folder, spec, {"ds_toy": data})
    order = RunOrder.model_validate_json((folder / "run.json").read_bytes())
    assert execute(order, MemoryContext(folder))["status"] == "succeeded"
    return folder / "artifact"


def asked(folder: Path, model: Path, data: Path, **spec: Any) -> MemoryContext:
    folder.mkdir()
    context = MemoryContext(folder)
    whole = {"model": "mdl_a", "dataset": "ds_rows", **spec}
    order = RunOrder(
        spec=JOB_SPEC.validate_python(whole), datasets={"ds_rows": str(data)}, cache=str(folder / "cache"), threads=1,
        model=str(model),
    )  # fmt: skip
    assert execute(order, context) == {"status": "succeeded", "metrics": {}, "summary": {}}
    return context


CLASSIFY = {"type": "finetune", "task": {"name": "classification"}}
RECIPES = {"text": "mlm", "image": "simclr", "audio": "simclr", "protein": "mlm", "image_text": "clip"}


@pytest.mark.parametrize("modality", ["text", "image", "audio", "protein"])
def test_every_row_without_a_label_is_answered_as_a_request_is(tmp_path: Path, modality: str) -> None:
    model = trained(tmp_path / "run", modality, TOYS[modality].write(tmp_path / "labelled"), **CLASSIFY)
    rows = TOYS[modality].write(tmp_path / "rows", labelled=False, seed=4)
    context = asked(tmp_path / "ask", model, rows, type="predict")
    assert fault_of(tmp_path / "ask" / "artifact") is None
    lines = (tmp_path / "ask" / "artifact" / "predictions.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    count = sum(parquet.read_table(path).num_rows for path in rows.glob("rows-*.parquet"))
    assert [each["row"] for each in found] == list(range(count))
    assert all(each.pop("source") for each in found)
    expected = inference.load(model).predict(TOYS[modality].items(rows, 5))
    for one, other in zip(found, expected, strict=False):  # batches of other sizes round differently
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    told = [event for event in context.events if event["type"] == "progress"]
    assert told[-1]["step"] == told[-1]["total_steps"] == count and told[-1]["stage"] == "predicting"


@pytest.mark.parametrize("modality", list(RECIPES))
def test_every_row_has_the_vector_that_the_model_gives_it(tmp_path: Path, modality: str) -> None:
    data = TOYS[modality].write(tmp_path / "data")
    model = trained(tmp_path / "run", modality, data, type="pretrain", objective={"name": RECIPES[modality]})
    asked(tmp_path / "ask", model, data, type="embed", pooling="mean")
    table = parquet.read_table(tmp_path / "ask" / "artifact" / "embeddings.parquet")
    loaded = inference.load(model)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), loaded.embed_dim)
    assert table["row"].to_pylist() == list(range(table.num_rows))
    vectors = np.asarray(table["embedding"].to_pylist(), dtype=np.float32)[:6]
    assert np.abs(vectors - loaded.embed(TOYS[modality].items(data, 6))).max() < 1e-5


def test_a_model_without_a_task_or_without_such_a_pooling_is_refused(tmp_path: Path) -> None:
    data = TOYS["image"].write(tmp_path / "data")
    model = trained(tmp_path / "run", "image", data, type="pretrain", objective={"name": "simclr"})
    with pytest.raises(SpecError) as caught:
        asked(tmp_path / "a", model, data, type="predict")
    assert caught.value.code == "no_task"
    with pytest.raises(SpecError) as caught:
        asked(tmp_path / "b", model, data, type="embed", pooling="cls")
    assert caught.value.code == "unsupported_pooling"
    assert not (tmp_path / "b" / "artifact").exists()


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    model = trained(tmp_path / "run", "image", TOYS["image"].write(tmp_path / "labelled"), **CLASSIFY)
    rows = TOYS["image"].write(tmp_path / "rows")
    path = rows / "rows-00000.parquet"
    table = parquet.read_table(path)
    broken = table["image"].to_pylist()
    broken[7] = b"\x89PNG no more"
    at = table.schema.get_field_index("image")
    parquet.write_table(table.set_column(at, "image", pa.array(broken, table.schema.field(at).type)), path)
    with pytest.raises(DataError) as caught:
        asked(tmp_path / "ask", model, rows, type="predict")
    assert caught.value.param == "rows[7]" and caught.value.message.startswith("row 7 (")


def test_it_leaves_when_asked_and_keeps_nothing(tmp_path: Path) -> None:
    data = TOYS["text"].write(tmp_path / "data")
    model = trained(tmp_path / "run", "text", data, **CLASSIFY)
    (tmp_path / "ask").mkdir()
    context = MemoryContext(tmp_path / "ask")
    context.stop = "cancel"
    spec = JOB_SPEC.validate_python({"type": "embed", "model": "mdl_a", "dataset": "ds_rows"})
    order = RunOrder(spec=spec, datasets={"ds_rows": str(data)}, cache=str(tmp_path / "c"), model=str(model))
    with pytest.raises(Stopped):
        execute(order, context)
    assert not (tmp_path / "ask" / "artifact").exists()
