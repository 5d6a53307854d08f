"""A fine-tuning run: base model or fresh weights, labels held out for early stopping, the best weights exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import checkpoint, distributed
from ssl_core.checkpoint import TrainState
from ssl_core.context import RunContext
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader
from ssl_core.data.restated import Restated
from ssl_core.durable import write_json
from ssl_core.encoders import build_encoder
from ssl_core.errors import SpecError
from ssl_core.evaluation.features import plain_batches
from ssl_core.export import BaseModel, Card, Finished, finish, open_base
from ssl_core.learner import Outcome, TrainStep
from ssl_core.modalities.base import Modality, Source
from ssl_core.nets import Nets
from ssl_core.pretrain import warn_of_small_batch
from ssl_core.spec import FinetuneSpec, RunOrder, TrainPlan
from ssl_core.splits import stratified
from ssl_core.targets import TARGETS
from ssl_core.tasks.base import Task
from ssl_core.trainer import train

_EVALUATIONS = 20


@dataclass(frozen=True)
class Split:
    """Labelled samples of a source."""

    source: Restated
    modality: Modality
    indices: NDArray[np.int64]

    def truth(self) -> dict[str, Tensor]:
        """What they are labelled with, first dimension len(indices); see `Task.metrics`."""
        return {name: torch.from_numpy(values) for name, values in self.source.truth(self.indices).items()}


class TaskEvaluation:
    """The task's metrics and loss on the validation split, plain views, twenty times in a run or once an epoch."""

    lower_is_better = False
    guard = None

    def __init__(self, task: Task, split: Split) -> None:
        self._task, self._split = task, split
        self.watched = f"validation/{task.best_metric}"

    def every(self, total_steps: int, steps_per_epoch: int) -> int:
        return max(1, total_steps // _EVALUATIONS, min(steps_per_epoch, total_steps // 5))

    def measure(self, nets: Nets) -> dict[str, float]:
        """`validation/…`."""
        scores = self._task.metrics(predictions(self._task, nets, self._split), self._split.truth())
        return {f"validation/{name}": value for name, value in sorted(scores.items())}

    def warnings(self, metrics: dict[str, float]) -> dict[str, str]:
        return {}


@torch.no_grad()
def predictions(task: Task, nets: Nets, split: Split) -> dict[str, Tensor]:
    """The task's outputs for a split, in its order and on the CPU, filled up as `Task.metrics` says."""
    device = next(nets.parameters()).device
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for positions, batch in plain_batches(split.source, split.modality, split.indices, device):
        for name, value in task.predict(nets, batch).items():
            kept = value.float() if value.is_floating_point() else value
            found.setdefault(name, []).append((torch.from_numpy(positions), kept.cpu()))
    return {name: _whole(parts, len(split.indices)) for name, parts in found.items()}


def _whole(parts: list[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """(count, ...) of batches (B, ...) and the rows where theirs stand; what is beyond a batch's size is filled up."""
    first = parts[0][1]
    sizes = [max(part.shape[axis] for _, part in parts) for axis in range(1, first.ndim)]
    fill = float("nan") if first.is_floating_point() else 0 if first.dtype == torch.bool else -1
    whole = torch.full((count, *sizes), fill, dtype=first.dtype)
    for rows, part in parts:
        if part.shape[1:] == whole.shape[1:]:
            whole[rows] = part
            continue
        inside: list[Any] = [rows, *(slice(size) for size in part.shape[1:])]
        whole[tuple(inside)] = part
    return whole


def finetune(order: RunOrder, spec: FinetuneSpec, context: RunContext) -> dict[str, Any]:
    """Run a resolved fine-tuning spec to its verdict (the content of `result.json`).

    Raises:
        EngineError: whatever is wrong with the spec, the data or the machine.
    """
    plan, device = TrainPlan.of(spec), distributed.device()
    context.emit("stage", stage="preparing")
    base = open_base(Path(order.model)) if order.model else None
    start = _open(order, spec, base, context)
    train_split, validation = _splits(order, spec, start, context)
    torch.manual_seed(spec.seed)
    encoder = build_encoder(start.backbone, start.facts)
    if base is not None and spec.initialization == "pretrained":
        base.load_encoder(encoder)
    classes = start.source.classes
    nets = spec.task.build(encoder, classes).to(device)
    loader = Loader(
        start.source,
        start.modality,
        spec.task.training_views(start.modality),
        indices=train_split.indices,
        batch_size=plan.batch_size,
        seed=spec.seed,
    )
    warn_of_small_batch(loader, plan, context)
    evaluation = TaskEvaluation(spec.task, validation) if len(validation.indices) else None
    resume = checkpoint.first_good([Path(path) for path in order.checkpoints], context)
    context.emit("stage", stage="training")
    outcome = Outcome("done", TrainState())
    if resume is not None or not _begin(spec.task, nets, train_split):
        outcome = train(TrainStep(spec.task, nets), loader, plan, context, evaluation, resume)
    metrics: dict[str, float] = {}
    if outcome.status == "done":
        part = "final" if evaluation is not None else "final_train"
        scored = validation if evaluation is not None else train_split
        metrics = _score(spec.task, nets, scored, context, outcome.state.step)
        metrics = {f"{part}/{name}": value for name, value in metrics.items()}
        context.emit("metrics", step=outcome.state.step, values=metrics)
    state = outcome.state
    card = Card(
        order,
        spec,
        start.modality,
        start.facts,
        classes,
        metrics,
        state.step if state.best is None else state.best_step,
        state.step,
        state.elapsed,
    )
    return finish(context, Finished(nets, outcome, card, start.tokenizer))


def _begin(task: Task, nets: Nets, split: Split) -> bool:
    """The task's start on plain views of the training split; True where that solved it."""
    nets.eval()
    device = next(nets.parameters()).device
    return task.begin(nets, (batch for _, batch in plain_batches(split.source, split.modality, split.indices, device)))


@dataclass(frozen=True)
class _Start:
    """What a run begins with: data and the encoder's shape, the base model's where there is one."""

    source: Restated
    modality: Modality
    facts: dict[str, Any]
    tokenizer: Path | None
    backbone: Any


def _open(order: RunOrder, spec: FinetuneSpec, base: BaseModel | None, context: RunContext) -> _Start:
    modality = base.modality if base is not None else spec.modality
    backbone = base.backbone if base is not None else spec.backbone
    if modality is None or backbone is None:
        raise SpecError("unresolved", "modality and backbone must be resolved before a run", "modality")
    given = base.tokenizer if base is not None else None
    folder = prepared(modality, Path(order.datasets[spec.dataset]), Path(order.cache), given, context)
    source = modality.open(folder)
    tokenizer = folder / "tokenizer.json"
    # What the encoder was built with, but the stored size of these pictures.
    facts = source.facts if base is None else {**base.facts, **{k: v for k, v in source.facts.items() if k == "side"}}
    labelled = _labelled(spec.task, source, facts, folder)
    return _Start(labelled, modality, facts, tokenizer if tokenizer.exists() else None, backbone)


def _labelled(
    task: Task, source: Source, facts: dict[str, Any], folder: Path, classes: list[str] | None = None
) -> Restated:
    """A source with what the task learns from, counted in `classes`, or in its own.

    Raises:
        SpecError: `no_targets`.
    """
    if task.target == "label":
        return Restated(source, facts, source.classes if classes is None else classes)
    kind = TARGETS[task.target]
    if not kind.is_in(folder):
        raise SpecError("no_targets", f"{task.name} learns from {kind.columns[0]}, and no row has them", "dataset")
    targets = kind.open(folder, classes)
    return Restated(source, facts, targets.classes, targets)


def _splits(order: RunOrder, spec: FinetuneSpec, start: _Start, context: RunContext) -> tuple[Split, Split]:
    """Training and validation samples; validation may be empty, and a message then says so."""
    source, modality = start.source, start.modality
    labels = source.groups()
    if not bool((labels >= 0).any()) or len(source.classes) < spec.task.least_classes:
        raise SpecError("no_classes", "the dataset needs labelled rows of at least two classes", "dataset")
    if spec.validation_dataset is not None:
        folder = Path(order.datasets[spec.validation_dataset])
        shards = prepared(modality, folder, Path(order.cache), start.tokenizer, context)
        other = _labelled(spec.task, modality.open(shards), start.facts, shards, source.classes)
        known = np.flatnonzero(other.groups() >= 0)
        if not len(known):
            text = f"no row of it has one of the training labels ({', '.join(source.classes[:20])})"
            raise SpecError("no_classes", text, "validation_dataset")
        return Split(source, modality, np.flatnonzero(labels >= 0)), Split(other, modality, known)
    kept, held = stratified(labels, spec.validation_fraction or 0.0, spec.seed)
    if not len(held) and spec.validation_fraction:
        text = (
            f"too few labels to hold out {spec.validation_fraction:.0%} of each class (two on either side are the "
            "least): all of them train for the whole budget without early stopping, and scores are of these rows"
        )
        context.emit("message", level="info", code="no_holdout", message=text)
    return Split(source, modality, kept), Split(source, modality, held)


def _score(task: Task, nets: Nets, split: Split, context: RunContext, step: int) -> dict[str, float]:
    """The task's metrics on a split, and a `sample` with the confusion matrix (up to 100 classes)."""
    context.emit("stage", stage="evaluating")
    nets.eval()
    outputs, truth, classes = predictions(task, nets, split), split.truth(), split.source.classes
    calls = task.calls(outputs, truth)
    if calls is not None and len(classes) <= 100 and distributed.is_main():
        counts = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        called, true = calls
        counts.index_put_((true, called), torch.ones_like(called), accumulate=True)
        (context.workdir / "samples").mkdir(exist_ok=True)
        path = "samples/confusion.json"
        write_json(context.workdir / path, {"classes": classes, "counts": counts.tolist()})
        caption = "counts[i][j]: samples of class i that were called class j"
        kind = "application/json"
        context.emit("sample", step=step, name="confusion", path=path, media_type=kind, caption=caption)
    return dict(sorted(task.metrics(outputs, truth).items()))
