"""An `evaluate` job: a fine-tuned model on labelled rows, with a table of classes and the rows to look at first.

A model without a task is measured by its objective: `ssl_core.evaluation.pretext`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core import distributed, inference
from ssl_core.context import RunContext
from ssl_core.data import rows
from ssl_core.data.cache import prepared
from ssl_core.durable import committed, write_json
from ssl_core.errors import SpecError
from ssl_core.evaluation import pretext, unknown_labels
from ssl_core.evaluation_spec import EvaluateSpec
from ssl_core.leakage import gate, quality
from ssl_core.scoring import Split, labelled, predictions, show_confusion, show_samples
from ssl_core.spec import RunOrder
from ssl_core.tasks.base import Task


def run(order: RunOrder, spec: EvaluateSpec, context: RunContext) -> dict[str, Any]:
    """Score, tell, and leave `evaluation.json` and `predictions.jsonl` as the artifact; returns the verdict.

    Raises:
        SpecError: `no_task`, `no_classes`, `unresolved`.
        CheckpointError: `invalid_model`.
        DataError: the dataset's folder is damaged.
    """
    if order.model is None:
        raise SpecError("unresolved", "an evaluation needs a model", "model")
    context.emit("stage", stage="preparing")
    if json.loads((Path(order.model) / "config.json").read_text(encoding="utf-8")).get("task") is None:
        return pretext.run(order, spec, context)
    gate.before_evaluation(order, spec, context)
    model = inference.load(Path(order.model), str(distributed.device()))
    task, nets = model.check_task(), model.nets
    odd = quality.look(order, spec.dataset, task, context)
    split = _split(model, task, order, spec, context)
    context.emit("stage", stage="evaluating")
    nets.eval()
    outputs, truth = predictions(task, nets, split), split.truth()
    metrics = {f"test/{name}": value for name, value in sorted(task.metrics(outputs, truth).items())} | odd
    context.emit("metrics", step=0, values=metrics)
    calls = task.calls(outputs, truth)
    table = task.by_class(outputs, truth, split.source.classes)
    if calls is not None:
        show_confusion(calls, split.source.classes, context, 0)
        table = class_table(*calls, split.source.classes)
    show_samples(task, nets, split, context, 0)
    dataset = Path(order.datasets[spec.dataset])
    worst = _worst(task.likelihood(outputs, truth), split, spec.worst_rows)
    with committed(context.workdir / "artifact") as folder:
        told = {
            "model": spec.model, "dataset": spec.dataset, "rows": len(split.indices), "metrics": metrics,
            "classes": table, "worst": _described(worst, dataset),
        }  # fmt: skip
        write_json(folder / "evaluation.json", told)
        _write_answers(folder / "predictions.jsonl", task, outputs, split)
    return {"status": "succeeded", "metrics": metrics, "summary": {}}


def _split(
    model: inference.LoadedModel, task: Task, order: RunOrder, spec: EvaluateSpec, context: RunContext
) -> Split:
    """The dataset's labelled rows, read as the model reads."""
    folder = Path(order.model or "")
    tokenizer = folder / "tokenizer.json"
    modality = model.modality
    given = tokenizer if tokenizer.exists() else None
    shards = prepared(modality, Path(order.datasets[spec.dataset]), Path(order.cache), given, context)
    source = modality.open(shards)
    unknown_labels.tell(Path(order.datasets[spec.dataset]), task, model.classes, "dataset", context)
    facts = {**model.nets.encoder.facts, **{name: value for name, value in source.facts.items() if name == "side"}}
    known = labelled(task, source, facts, shards, model.classes)
    indices = np.flatnonzero(known.groups() >= 0)
    if not len(indices):
        text = f"no row of it has one of the model's labels ({', '.join(model.classes[:20])})"
        raise SpecError("no_classes", text, "dataset")
    return Split(known, modality, indices, shards)


def class_table(called: Tensor, true: Tensor, classes: list[str]) -> list[dict[str, Any]]:
    """Rows, precision, recall and F1 of each class, of (n,) called and true class numbers; 0 where nothing counts."""
    right = torch.bincount(true[called == true], minlength=len(classes)).double()
    claimed = torch.bincount(called, minlength=len(classes)).double()
    present = torch.bincount(true, minlength=len(classes)).double()
    columns = {
        "precision": right / claimed.clamp(min=1),
        "recall": right / present.clamp(min=1),
        "f1": 2 * right / (claimed + present).clamp(min=1),
    }
    return [
        {"class": name, "rows": int(present[at]), **{key: round(float(value[at]), 6) for key, value in columns.items()}}
        for at, name in enumerate(classes)
    ]


def _worst(likelihood: Tensor | None, split: Split, count: int) -> list[tuple[int, float]]:
    """(dataset row, likelihood of its labels) of the least likely first."""
    if likelihood is None:
        return []
    order = torch.argsort(likelihood, stable=True)[:count].tolist()
    return [(int(split.indices[at]), round(float(likelihood[at]), 6)) for at in order]


def _described(worst: list[tuple[int, float]], dataset: Path) -> list[dict[str, Any]]:
    """The same with where each row came from, and its class label if it has one."""
    wanted, found, start = {row for row, _ in worst}, {}, 0
    for batch in rows.batches(dataset, ["label", "source"], rows=8192):
        for at in range(len(batch["source"])):
            if start + at in wanted:
                found[start + at] = (batch["source"][at], batch["label"][at])
        start += len(batch["source"])
    return [
        {"row": row, "source": found[row][0], "label": found[row][1], "likelihood": value} for row, value in worst
    ]


def _write_answers(path: Path, task: Task, outputs: dict[str, Tensor], split: Split) -> None:
    """One line a row: its number in the dataset, and what the predictions endpoint would say of it."""
    outputs = {**outputs, **task.marked(outputs, split.truth())}
    with path.open("w", encoding="utf-8") as file:
        for at, row in enumerate(split.indices.tolist()):
            answer = task.answer(outputs, at, split.source.classes)
            file.write(json.dumps({"row": row, **answer}, allow_nan=False) + "\n")
