"""A fine-tuning run: base model or fresh weights, labels held out for early stopping, the best weights exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_core import checkpoint, distributed
from ssl_core.adapters import adapt, merge
from ssl_core.checkpoint import TrainState
from ssl_core.context import RunContext
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader
from ssl_core.data.restated import Restated
from ssl_core.durable import committed, write_json
from ssl_core.encoders import build_encoder
from ssl_core.errors import SpecError
from ssl_core.evaluation import precision, unknown_labels
from ssl_core.evaluation.features import plain_batches
from ssl_core.export import BaseModel, Card, Finished, finish, open_base
from ssl_core.leakage import gate, quality
from ssl_core.learner import Outcome, TrainStep
from ssl_core.modalities.base import Modality
from ssl_core.nets import Nets
from ssl_core.pretrain import warn_of_small_batch
from ssl_core.scoring import Split, labelled, predictions, score
from ssl_core.self_training import ROWS
from ssl_core.spec import FinetuneSpec, RunOrder, TrainPlan
from ssl_core.splits import drawn, stratified
from ssl_core.tasks.base import Task
from ssl_core.trainer import train

_EVALUATIONS = 20


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
        scores = self._task.metrics(predictions(self._task, nets, self._split, quick=True), self._split.truth())
        return {f"validation/{name}": value for name, value in sorted(scores.items())}

    def warnings(self, metrics: dict[str, float]) -> dict[str, str]:
        return {}


def finetune(order: RunOrder, spec: FinetuneSpec, context: RunContext) -> dict[str, Any]:
    """Run a resolved fine-tuning spec to its verdict (the content of `result.json`).

    Raises:
        EngineError: whatever is wrong with the spec, the data or the machine.
    """
    plan, device = TrainPlan.of(spec), distributed.device()
    context.emit("stage", stage="preparing")
    base = open_base(Path(order.model)) if order.model else None
    spec = spec.model_copy(update={"task": spec.task.settled(base)})
    if not order.checkpoints:  # a run that goes on has passed
        gate.before_finetune(order, spec, context)
    odd = quality.look(order, spec.dataset, spec.task, context, told=not order.checkpoints)
    start = _open(order, spec, base, context)
    train_split, validation = _splits(order, spec, start, context)
    torch.manual_seed(spec.seed)
    nets = _nets(spec, start, base).to(device)
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
    solved = resume is None and _begin(spec.task, nets, train_split)
    if resume is None and spec.task.reads_pool():
        _refine(order, spec, start, (nets, train_split), context)
    if not solved:
        outcome = train(TrainStep(spec.task, nets), loader, plan, context, evaluation, resume)
    merge(nets.encoder)
    metrics: dict[str, float] = {}
    if outcome.status == "done":
        metrics = odd | _final(order, spec, start, (train_split, validation), nets, (context, outcome.state.step))
    state = outcome.state
    if outcome.status == "done" and not spec.keep_model:
        with committed(context.workdir / "artifact") as folder:
            write_json(folder / "scores.json", {"metrics": metrics, "steps": state.step, "minutes": state.elapsed / 60})
        return {"status": "succeeded", "metrics": metrics, "summary": {}}
    card = Card(
        order,
        spec,
        start.modality,
        start.facts,
        start.source.classes,
        metrics,
        state.step if state.best is None else state.best_step,
        state.step,
        state.elapsed,
        _int8(nets, train_split, validation) if outcome.status == "done" and distributed.is_main() else None,
    )
    return finish(context, Finished(nets, outcome, card, start.tokenizer))


def _int8(nets: Nets, train_split: Split, validation: Split) -> dict[str, Any] | None:
    """On held-out rows, where there are any."""
    tried = validation if len(validation.indices) else train_split
    return precision.int8_told(nets.encoder, tried.source, tried.modality, tried.indices)


def _final(
    order: RunOrder,
    spec: FinetuneSpec,
    start: _Start,
    splits: tuple[Split, Split],
    nets: Nets,
    at: tuple[RunContext, int],
) -> dict[str, float]:
    """The finished run's scores on what was held out (or, without that, on what it learned from) and on a test set."""
    context, step = at
    train_split, validation = splits
    part, scored = ("final", validation) if len(validation.indices) else ("final_train", train_split)
    metrics = {f"{part}/{name}": value for name, value in score(spec.task, nets, scored, context, step).items()}
    if spec.test_dataset is not None:
        test = _beside(order, spec, start, (spec.test_dataset, "test_dataset"), context)
        found = score(spec.task, nets, test, context, step)
        metrics |= {f"test/{name}": value for name, value in found.items()}
    metrics["data/training_rows"] = float(len(train_split.indices) + len(validation.indices))
    context.emit("metrics", step=step, values=metrics)
    return metrics


def _begin(task: Task, nets: Nets, split: Split) -> bool:
    """The task's start on plain views of the training split; True where that solved it."""
    nets.eval()
    device = next(nets.parameters()).device
    return task.begin(nets, (batch for _, batch in plain_batches(split.source, split.modality, split.indices, device)))


def _refine(
    order: RunOrder, spec: FinetuneSpec, start: _Start, ready: tuple[Nets, Split], context: RunContext
) -> None:
    """Let the task learn from an even draw of the pool's rows."""
    if spec.pool is None or spec.pool not in order.datasets:
        raise SpecError("no_pool", "this task reads unlabelled rows too; name a dataset that is still here", "pool")
    nets, split = ready
    folder = prepared(start.modality, Path(order.datasets[spec.pool]), Path(order.cache), start.tokenizer, context)
    source, device = start.modality.open(folder), next(nets.parameters()).device
    draw = np.random.Generator(np.random.Philox(key=[spec.seed, 3]))
    rows = np.sort(draw.permutation(source.count("document"))[:ROWS])
    labelled_rows = (batch for _, batch in plain_batches(split.source, split.modality, split.indices, device))
    unlabelled = (batch for _, batch in plain_batches(source, start.modality, rows, device))
    nets.eval()
    told = spec.task.refine(nets, labelled_rows, unlabelled)
    context.emit("message", level="info", code="self_training", message=told)


@dataclass(frozen=True)
class _Start:
    """What a run begins with: data and the encoder's shape, the base model's where there is one."""

    source: Restated
    modality: Modality
    facts: dict[str, Any]
    tokenizer: Path | None
    backbone: Any
    folder: Path


def _nets(spec: FinetuneSpec, start: _Start, base: BaseModel | None) -> Nets:
    """The encoder with the task's head, with what is taken over of the base model, and adapters where they train."""
    encoder = build_encoder(start.backbone, start.facts)
    taken = base if spec.initialization == "pretrained" else None
    if taken is not None:
        taken.load_encoder(encoder)
    nets = spec.task.build(encoder, start.source.classes)
    if taken is not None:
        spec.task.adopt(nets, taken)
    if (low := spec.task.low_rank()) is not None:
        adapt(nets.encoder, low)
    return nets


def _open(order: RunOrder, spec: FinetuneSpec, base: BaseModel | None, context: RunContext) -> _Start:
    given = base.modality if base is not None else spec.modality
    backbone = base.backbone if base is not None else spec.backbone
    if given is None or backbone is None:
        raise SpecError("unresolved", "modality and backbone must be resolved before a run", "modality")
    modality = spec.task.reading(given)
    codec = base.tokenizer if base is not None else None
    folder = prepared(modality, Path(order.datasets[spec.dataset]), Path(order.cache), codec, context)
    source = modality.open(folder)
    tokenizer = folder / "tokenizer.json"
    # What the encoder was built with, but how these pictures are stored.
    stored = {k: v for k, v in source.facts.items() if k in ("side", "size", "fit")}
    facts = source.facts if base is None else {**base.facts, **stored}
    known = labelled(spec.task, source, facts, folder)
    return _Start(known, modality, facts, tokenizer if tokenizer.exists() else None, backbone, folder)


def _splits(order: RunOrder, spec: FinetuneSpec, start: _Start, context: RunContext) -> tuple[Split, Split]:
    """Training and validation samples; validation may be empty, and a message then says so."""
    source, modality = start.source, start.modality
    labels = source.groups()
    if not bool((labels >= 0).any()) or len(source.classes) < spec.task.least_classes:
        raise SpecError("no_classes", "the dataset needs labelled rows of at least two classes", "dataset")
    chosen = drawn(labels, spec.labels, spec.seed)
    if spec.labels is not None:
        text = f"{len(chosen)} of {int((labels >= 0).sum())} labelled rows were drawn by seed {spec.seed}"
        context.emit("message", level="info", code="rows_drawn", message=text)
    if spec.validation_dataset is not None:
        other = _beside(order, spec, start, (spec.validation_dataset, "validation_dataset"), context)
        return Split(source, modality, chosen, start.folder), other
    only = np.full_like(labels, -1)
    only[chosen] = labels[chosen]
    kept, held = stratified(only, spec.validation_fraction or 0.0, spec.seed)
    if not len(held) and spec.validation_fraction:
        text = (
            f"too few labels to hold out {spec.validation_fraction:.0%} of each class (two on either side are the "
            "least): all of them train for the whole budget without early stopping, and scores are of these rows"
        )
        context.emit("message", level="info", code="no_holdout", message=text)
    return Split(source, modality, kept, start.folder), Split(source, modality, held, start.folder)


def _beside(
    order: RunOrder, spec: FinetuneSpec, start: _Start, named: tuple[str, str], context: RunContext
) -> Split:
    """The labelled rows of another dataset, read as the training data is; `named`: its id, and its field."""
    dataset, param = named
    folder = prepared(start.modality, Path(order.datasets[dataset]), Path(order.cache), start.tokenizer, context)
    classes = start.source.classes
    unknown_labels.tell(Path(order.datasets[dataset]), spec.task, classes, param, context)
    other = labelled(spec.task, start.modality.open(folder), start.facts, folder, classes)
    known = np.flatnonzero(other.groups() >= 0)
    if not len(known):
        text = f"no row of it has one of the training labels ({', '.join(classes[:20])})"
        raise SpecError("no_classes", text, param)
    return Split(other, start.modality, known, folder)
