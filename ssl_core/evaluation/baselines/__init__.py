"""Classical models, fitted on the same labels and the same pool: the fair opponent of a pretrained one.

One module for each row of `BASELINES`; each has `fit_predict`. scikit-learn is imported inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_core.context import RunContext
from ssl_core.data import rows
from ssl_core.durable import committed, write_json
from ssl_core.errors import SpecError
from ssl_core.evaluation_spec import BASELINES, BaselineSpec
from ssl_core.leakage import gate
from ssl_core.modalities import MODALITIES
from ssl_core.spec import RunOrder
from ssl_core.splits import drawn

MAX_POOL = 100_000
"""Rows of the pool that a classical model reads, from the first."""


@dataclass(frozen=True)
class Problem:
    """What a classical model gets.

    Attributes:
        train, test: contents: strings, or bytes of files.
        labels: of `train`: a class each, or a list of classes and None (tags).
        pool: the unlabelled contents, to be walked once; nothing where there is no pool.
        seed: of whatever it draws.
    """

    train: Sequence[Any]
    labels: Sequence[Any]
    test: Sequence[Any]
    pool: Callable[[], Iterator[Any]]
    seed: int


@dataclass(frozen=True)
class Answer:
    """`predicted` for each test row, in the form of `Problem.labels`; `model`: which of several was the best."""

    predicted: Sequence[Any]
    model: str


def run(order: RunOrder, spec: BaselineSpec, context: RunContext) -> dict[str, Any]:
    """Fit, predict, score; returns the verdict, and leaves `scores.json` as the artifact.

    Raises:
        SpecError: `arm_unavailable`, `no_classes`.
        DataError: `leakage`.
    """
    name = BASELINES.get((spec.modality, spec.task.name))
    if name is None:
        text = f"there is no classical model for {spec.task.name} of {spec.modality}"
        raise SpecError("arm_unavailable", text, "task.name")
    gate.before_baseline(order, spec, context)
    context.emit("stage", stage="training")
    column = "label" if spec.task.target == "label" else spec.task.target
    train, labels = _read(Path(order.datasets[spec.dataset]), spec.modality, column)
    test, truth = _read(Path(order.datasets[spec.test_dataset]), spec.modality, column)
    truth = _learnable(truth, labels)
    scored = [at for at, label in enumerate(truth) if label is not None]
    test, truth = [test[at] for at in scored], [truth[at] for at in scored]
    groups = _groups(labels)
    if column == "label" and groups.max(initial=-1) < 1:
        raise SpecError("no_classes", "the dataset needs labelled rows of at least two classes", "dataset")
    chosen = drawn(groups, spec.labels, spec.seed)
    pool = None if spec.pool is None else Path(order.datasets[spec.pool])
    problem = Problem(
        [train[at] for at in chosen], [labels[at] for at in chosen], test,
        lambda: iter(()) if pool is None else islice(_contents(pool, spec.modality), MAX_POOL), spec.seed,
    )  # fmt: skip
    answer: Answer = import_module(f"{__name__}.{name}").fit_predict(problem)
    context.emit("message", level="info", code="classical_model", message=f"the classical model is {answer.model}")
    metrics = {f"test/{each}": value for each, value in _scores(answer.predicted, truth).items()}
    metrics["data/training_rows"] = float(len(chosen))
    context.emit("metrics", step=0, values=metrics)
    with committed(context.workdir / "artifact") as folder:
        write_json(folder / "scores.json", {"model": answer.model, "metrics": metrics})
    return {"status": "succeeded", "metrics": metrics, "summary": {}}


def _read(dataset: Path, modality: str, column: str) -> tuple[list[Any], list[Any]]:
    """Every row's content and label; None where it has none."""
    content = _column(modality)
    contents, labels = [], []
    for batch in rows.batches(dataset, [content, column]):
        contents += batch[content]
        labels += batch[column]
    return contents, labels


def _learnable(truth: list[Any], labels: list[Any]) -> list[Any]:
    """None in place of a label or tag that no training row has: the pretrained arms are not scored on it either."""
    known = {name for label in labels for name in ([label] if isinstance(label, str) else label or ())} - {None}
    return [
        [name if name in known else None for name in label]
        if isinstance(label, list)
        else (label if label in known else None)
        for label in truth
    ]


def _contents(dataset: Path, modality: str) -> Iterator[Any]:
    content = _column(modality)
    for batch in rows.batches(dataset, [content]):
        yield from batch[content]


def _column(modality: str) -> str:
    return next(iter(MODALITIES[modality].columns))


def _groups(labels: Sequence[Any]) -> NDArray[np.int64]:
    """The strata that rows are drawn from: class numbers, as a fine-tuning run has them; of tags one; -1 = no label."""
    classes = sorted({label for label in labels if isinstance(label, str)})
    index = {name: number for number, name in enumerate(classes)}
    return np.asarray([-1 if each is None else index[each] if isinstance(each, str) else 0 for each in labels])


def _scores(predicted: Sequence[Any], truth: Sequence[Any]) -> dict[str, float]:
    """Accuracy and macro-F1 of classes, or of all tags that are there."""
    import torch

    from ssl_core.evaluation.scores import accuracy, macro_f1

    if truth and not isinstance(truth[0], str):
        pairs = [(p, t) for ps, ts in zip(predicted, truth, strict=True) for p, t in zip(ps, ts, strict=True) if t]
    else:
        pairs = list(zip(predicted, truth, strict=True))
    index = {name: at for at, name in enumerate(sorted({each for pair in pairs for each in pair}))}
    called, true = (torch.tensor([index[pair[side]] for pair in pairs]) for side in (0, 1))
    return {"accuracy": accuracy(called, true), "macro_f1": macro_f1(called, true)}
