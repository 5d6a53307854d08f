"""A fine-tuning run: base model or fresh weights, labels held out for early stopping, the best weights exported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import checkpoint, distributed
from ssl_core.context import RunContext
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader
from ssl_core.data.restated import Restated
from ssl_core.durable import write_json
from ssl_core.encoders import build_encoder
from ssl_core.encoders.base import Encoder
from ssl_core.errors import SpecError
from ssl_core.evaluation.features import features, plain_batches
from ssl_core.evaluation.frozen import Passthrough, Vectors, VectorSource
from ssl_core.export import BaseModel, Card, open_base
from ssl_core.modalities.base import Modality, Source
from ssl_core.nets import Nets
from ssl_core.pretrain import warn_of_small_batch
from ssl_core.spec import FinetuneSpec, RunOrder, TrainPlan
from ssl_core.splits import stratified
from ssl_core.tasks.base import Task
from ssl_core.trainer import train
from ssl_core.verdict import Finished, finish

_EVALUATIONS = 20


@dataclass(frozen=True)
class Split:
    """Labelled samples of a source."""

    source: Source
    modality: Modality
    indices: NDArray[np.int64]

    def labels(self) -> Tensor:
        """(len(indices),) int64."""
        assert self.source.labels is not None
        return torch.from_numpy(np.asarray(self.source.labels, dtype=np.int64)[self.indices])


class TaskEvaluation:
    """The task's metrics and loss on the validation split, plain views, twenty times in a run or once an epoch."""

    def __init__(self, task: Task, split: Split) -> None:
        self._task, self._split = task, split
        self.watched = f"validation/{task.best_metric}"

    def every(self, total_steps: int, steps_per_epoch: int) -> int:
        return max(1, total_steps // _EVALUATIONS, min(steps_per_epoch, total_steps // 5))

    def measure(self, nets: Nets) -> dict[str, float]:
        """`validation/…`."""
        outputs, loss = predictions(self._task, nets, self._split)
        scores = {"loss": loss, **self._task.metrics(outputs, self._split.labels())}
        return {f"validation/{name}": value for name, value in sorted(scores.items())}

    def warnings(self, metrics: dict[str, float]) -> dict[str, str]:
        return {}


def predictions(task: Task, nets: Nets, split: Split) -> tuple[dict[str, Tensor], float]:
    """The task's outputs for a split, in its order and on the CPU, and the mean loss of a sample."""
    device = next(nets.parameters()).device
    outputs: dict[str, Tensor] = {}
    loss = 0.0
    for positions, batch in plain_batches(split.source, split.modality, split.indices, device):
        at = torch.from_numpy(positions)
        loss += float(task.loss(nets, batch)["loss"]) * len(positions)
        for name, value in task.predict(nets, batch).items():
            value = value.float().cpu()
            outputs.setdefault(name, torch.empty(len(split.indices), *value.shape[1:]))[at] = value
    return outputs, loss / len(split.indices)


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
    encoder.to(device)
    classes = start.source.classes
    frozen = spec.task.frozen
    if frozen:
        train_split, validation = _vectors(encoder, train_split, device), _vectors(encoder, validation, device)
    nets = spec.task.build(Passthrough(encoder) if frozen else encoder, classes).to(device)
    views = ("plain",) if frozen else spec.task.training_views(start.modality)
    loader = Loader(
        train_split.source,
        train_split.modality,
        views,
        indices=train_split.indices,
        batch_size=plan.batch_size,
        seed=spec.seed,
    )
    warn_of_small_batch(loader, plan, context)
    evaluation = TaskEvaluation(spec.task, validation) if len(validation.indices) else None
    resume = checkpoint.first_good([Path(path) for path in order.checkpoints], context)
    context.emit("stage", stage="training")
    outcome = train(spec.task, nets, loader, plan, context, evaluation=evaluation, resume=resume)
    if outcome.status == "done":
        metrics = _final_metrics(
            spec.task, nets, validation if evaluation is not None else train_split, evaluation is not None
        )
        _confusion(spec.task, nets, validation if evaluation is not None else train_split, context, outcome.state.step)
    else:
        metrics = {}
    state = outcome.state
    card = Card(
        order,
        spec,
        start.modality,
        start.facts,
        classes,
        metrics,
        state.best_step or state.step,
        state.step,
        state.elapsed,
    )
    if frozen:
        whole = spec.task.build(encoder, classes).to(device)
        whole.parts.load_state_dict(nets.parts.state_dict())
        nets = whole
    return finish(context, Finished(nets, outcome, card, start.tokenizer))


@dataclass(frozen=True)
class _Start:
    """What a run begins with: data and the encoder's shape, the base model's where there is one."""

    source: Source
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
    return _Start(
        Restated(source, facts, source.classes), modality, facts, tokenizer if tokenizer.exists() else None, backbone
    )


def _splits(order: RunOrder, spec: FinetuneSpec, start: _Start, context: RunContext) -> tuple[Split, Split]:
    """Training and validation samples; validation may be empty, and a message then says so."""
    source, modality = start.source, start.modality
    if source.labels is None or len(source.classes) < 2:
        raise SpecError("no_classes", "the dataset needs labelled rows of at least two classes", "dataset")
    labels = np.asarray(source.labels, dtype=np.int64)
    if spec.validation_dataset is not None:
        folder = Path(order.datasets[spec.validation_dataset])
        shards = prepared(modality, folder, Path(order.cache), start.tokenizer, context)
        other = Restated(modality.open(shards), start.facts, source.classes)
        known = (
            np.flatnonzero(np.asarray(other.labels) >= 0) if other.labels is not None else np.empty(0, dtype=np.int64)
        )
        if not len(known):
            text = f"no row of it has one of the training labels ({', '.join(source.classes[:20])})"
            raise SpecError("no_classes", text, "validation_dataset")
        return Split(source, modality, np.flatnonzero(labels >= 0)), Split(other, modality, known)
    kept, held = stratified(labels, spec.validation_fraction or 0.0, spec.seed)
    if not len(held) and spec.validation_fraction:
        text = (
            f"too few labels to hold out {spec.validation_fraction:.0%} of each class (at least two a class on either side are "
            "needed): training on all of them for the whole budget, without early stopping; scores are of the training rows"
        )
        context.emit("message", level="info", code="no_holdout", message=text)
    return Split(source, modality, kept), Split(source, modality, held)


def _vectors(encoder: Encoder, split: Split, device: torch.device) -> Split:
    """The split as vectors of the frozen encoder."""
    made = features(encoder, split.source, split.modality, split.indices, device)
    source = VectorSource(made, split.labels().numpy(), split.source.classes)
    return replace(split, source=source, modality=Vectors(), indices=np.arange(len(split.indices)))


def _final_metrics(task: Task, nets: Nets, split: Split, held_out: bool) -> dict[str, float]:
    nets.eval()
    with torch.no_grad():
        outputs, loss = predictions(task, nets, split)
    prefix = "validation" if held_out else "train"
    return {
        f"{prefix}/{name}": value
        for name, value in sorted({"loss": loss, **task.metrics(outputs, split.labels())}.items())
    }


def _confusion(task: Task, nets: Nets, split: Split, context: RunContext, step: int) -> None:
    """A `sample`: rows are true classes, columns predicted ones (up to 100 classes)."""
    classes = split.source.classes
    with torch.no_grad():
        outputs, _ = predictions(task, nets, split)
    if "probabilities" not in outputs or len(classes) > 100 or not distributed.is_main():
        return
    counts = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    guesses = outputs["probabilities"].argmax(1)
    counts.index_put_((split.labels(), guesses), torch.ones(len(guesses), dtype=torch.int64), accumulate=True)
    folder = context.workdir / "samples"
    folder.mkdir(exist_ok=True)
    write_json(folder / "confusion.json", {"classes": classes, "counts": counts.tolist()})
    caption = "rows: true class, columns: predicted class"
    context.emit(
        "sample",
        step=step,
        name="confusion",
        path="samples/confusion.json",
        media_type="application/json",
        caption=caption,
    )
