"""Fine-tuning on some of the labels, test sets, runs that keep no model, evaluations and classical models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import classification_report

from ssl_core.context import MemoryContext
from ssl_core.durable import fault_of
from ssl_core.errors import DataError
from ssl_core.evaluation import unknown_labels
from ssl_core.evaluation.baselines import _learnable
from ssl_core.evaluation.evaluate import class_table
from ssl_core.run import execute
from ssl_core.spec import JOB_SPEC, RunOrder
from ssl_core.splits import drawn
from ssl_core.tasks.tagging import Tagging
from tests.ssl_core import datasets
from tests.ssl_core.datasets import TEXT, TINY_TEXT


def run(
    workdir: Path, spec: dict[str, Any], data: dict[str, Path], **more: Any
) -> tuple[dict[str, Any], MemoryContext]:
    workdir.mkdir()
    context = MemoryContext(workdir)
    if spec["type"] == "finetune":
        return execute(datasets.order(workdir, spec, data, **more), context), context
    paths = {name: str(path) for name, path in data.items()}
    order = RunOrder(
        spec=JOB_SPEC.validate_python(spec), datasets=paths, cache=str(workdir.parent / "cache"), threads=1, **more
    )
    return execute(order, context), context


def finetune(**more: Any) -> dict[str, Any]:
    return {
        "type": "finetune", "dataset": "ds_rows", "test_dataset": "ds_test", "task": {"name": "classification"},
        "modality": TEXT.model_dump(mode="json"), "backbone": TINY_TEXT, "budget": {"steps": 40}, "batch_size": 16,
        **more,
    }  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    return {
        "ds_rows": datasets.text_dataset(tmp_path / "rows"),
        "ds_test": datasets.text_dataset(tmp_path / "test", rows=30, seed=5),
    }


def test_the_rows_of_a_smaller_draw_are_among_those_of_a_larger_one() -> None:
    groups = np.asarray([0, 1, 2, -1] * 25)
    draws = [set(drawn(groups, count, seed=3).tolist()) for count in (2, 5, 24)]
    assert [len(each) for each in draws] == [6, 15, 72]
    assert draws[0] < draws[1] < draws[2]
    assert all(groups[at] >= 0 for at in draws[2])
    assert set(drawn(groups, 2, seed=4).tolist()) != draws[0]
    assert len(drawn(groups, None, seed=3)) == 75
    assert len(drawn(groups, 1000, seed=3)) == 75


def test_a_run_learns_from_the_labels_it_was_given_and_scores_on_the_test_rows(
    tmp_path: Path, data: dict[str, Path]
) -> None:
    verdict, context = run(tmp_path / "run", finetune(labels=8, keep_model=False), data)
    metrics = verdict["metrics"]
    assert metrics["data/training_rows"] == 24
    assert 0.3 < metrics["test/accuracy"] <= 1
    assert {"rows_drawn"} <= {event["code"] for event in context.events if event["type"] == "message"}
    assert json.loads((tmp_path / "run/artifact/scores.json").read_text())["metrics"] == metrics
    assert not (tmp_path / "run/artifact/model.safetensors").exists()


def test_an_evaluation_says_what_the_run_said_and_where_to_look(tmp_path: Path, data: dict[str, Path]) -> None:
    verdict, _ = run(tmp_path / "run", finetune(), data)
    model = tmp_path / "run/artifact"
    spec = {"type": "evaluate", "model": "mdl_a", "dataset": "ds_test", "worst_rows": 4}
    found, context = run(tmp_path / "eval", spec, data, model=str(model))
    for name in ("accuracy", "macro_f1"):
        assert found["metrics"][f"test/{name}"] == pytest.approx(verdict["metrics"][f"test/{name}"], abs=1e-6)
    folder = tmp_path / "eval/artifact"
    assert fault_of(folder) is None
    told = json.loads((folder / "evaluation.json").read_text())
    assert told["rows"] == 30 and [row["class"] for row in told["classes"]] == sorted(datasets.TOPICS)
    worst = [row["likelihood"] for row in told["worst"]]
    assert len(worst) == 4 and worst == sorted(worst)
    answers = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(answers) == 30
    least = min(answers, key=lambda each: each["probabilities"][_label(data["ds_test"], each["row"])])
    assert told["worst"][0]["row"] == least["row"]
    assert told["worst"][0]["source"] == f"toy.csv:{least['row']}"
    assert any(event["type"] == "sample" for event in context.events), "the confusion matrix"


def test_rows_that_the_model_learned_from_are_not_scored_unless_that_is_allowed(
    tmp_path: Path, data: dict[str, Path]
) -> None:
    run(tmp_path / "run", finetune(), data)
    spec = {"type": "evaluate", "model": "mdl_a", "dataset": "ds_rows", "training_dataset": "ds_rows"}
    with pytest.raises(DataError, match="rows of dataset are among what the model learns from") as caught:
        run(tmp_path / "no", spec, data, model=str(tmp_path / "run/artifact"))
    assert (caught.value.code, caught.value.param) == ("leakage", "dataset")
    found, context = run(tmp_path / "yes", {**spec, "allow_leakage": True}, data, model=str(tmp_path / "run/artifact"))
    assert found["status"] == "succeeded"
    assert "leakage" in {event["code"] for event in context.events if event["type"] == "message"}


def _label(folder: Path, row: int) -> str:
    import pyarrow.parquet as parquet

    return str(parquet.read_table(folder / "rows-00000.parquet")["label"][row].as_py())


def test_the_table_of_classes_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    true, called = torch.randint(0, 4, (2, 200), generator=generator)
    table = class_table(called, true, ["a", "b", "c", "d"])
    report = classification_report(true, called, target_names=["a", "b", "c", "d"], output_dict=True)
    for row in table:
        known = report[row["class"]]
        assert row["rows"] == known["support"]
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert row[ours] == pytest.approx(known[theirs], abs=1e-6)


def test_a_classical_model_of_text_learns_from_labels_and_pool(tmp_path: Path, data: dict[str, Path]) -> None:
    pool = {"ds_pool": datasets.text_dataset(tmp_path / "pool", rows=120, labelled=False, seed=9)}
    spec = {
        "type": "baseline", "dataset": "ds_rows", "test_dataset": "ds_test", "pool": "ds_pool", "modality": "text",
        "task": {"name": "classification"}, "labels": 5,
    }  # fmt: skip
    found, context = run(tmp_path / "run", spec, data | pool)
    assert found["metrics"]["test/accuracy"] > 0.8
    assert found["metrics"]["data/training_rows"] == 15
    assert "logistic regression" in str(context.events)


def test_a_classical_model_of_pictures_learns(tmp_path: Path) -> None:
    data = {
        "ds_rows": datasets.image_dataset(tmp_path / "rows", rows=30),
        "ds_test": datasets.image_dataset(tmp_path / "test", rows=30, seed=3),
    }
    spec = {
        "type": "baseline", "dataset": "ds_rows", "test_dataset": "ds_test", "modality": "image",
        "task": {"name": "classification"},
    }  # fmt: skip
    found, _ = run(tmp_path / "run", spec, data)
    assert found["metrics"]["test/accuracy"] > 0.6


def test_a_classical_model_of_residues_learns(tmp_path: Path) -> None:
    data = {
        "ds_rows": datasets.protein_dataset(tmp_path / "rows", rows=30),
        "ds_test": datasets.protein_dataset(tmp_path / "test", rows=20, seed=3),
    }
    spec = {
        "type": "baseline", "dataset": "ds_rows", "test_dataset": "ds_test", "modality": "protein",
        "task": {"name": "tagging"}, "labels": 20,
    }  # fmt: skip
    found, _ = run(tmp_path / "run", spec, data)
    assert found["metrics"]["test/accuracy"] > 0.6


def test_a_classical_model_is_scored_on_what_it_could_have_learned() -> None:
    assert _learnable(["a", "z", None, "b"], ["a", "b", None]) == ["a", None, None, "b"]
    assert _learnable([["H", "z", None], ["E"]], [["H", None], None, ["E", "E"]]) == [["H", None, None], ["E"]]


def test_tags_that_the_model_has_not_learned_are_named_with_their_rows(tmp_path: Path) -> None:
    rows, context = datasets.text_dataset(tmp_path / "rows", rows=4), MemoryContext(tmp_path)
    assert unknown_labels.tell(rows, Tagging(), ["long", "short"], "test_dataset", context) == 0
    assert context.events == []
    assert unknown_labels.tell(rows, Tagging(), ["long"], "test_dataset", context) == 4
    listed = json.loads((tmp_path / "samples" / "unknown_labels_test_dataset.json").read_text())["listed"]
    assert [(each["row"], each["labels"]) for each in listed] == [(row, ["short"]) for row in range(4)]
    (message,) = [event["message"] for event in context.events if event["type"] == "message"]
    assert "these labels are left out: row 0 (toy.csv:0): short; row 1" in message
