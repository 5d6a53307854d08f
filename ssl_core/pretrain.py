"""A pretraining run: prepare, train with validation, health and probe scores, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_core import checkpoint, distributed, health
from ssl_core.batch import Batch
from ssl_core.context import RunContext
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader, make_batch, read_slice
from ssl_core.encoders import build_encoder
from ssl_core.errors import SpecError
from ssl_core.evaluation import attention, neighbours, precision
from ssl_core.evaluation.features import features
from ssl_core.evaluation.probe import probe_scores
from ssl_core.evaluation.samples import Show
from ssl_core.export import Card, Finished, finish, open_base
from ssl_core.guard import Guard, Pulse
from ssl_core.learner import Outcome, TrainStep
from ssl_core.modalities.base import Modality, Source
from ssl_core.nets import Nets
from ssl_core.objectives.base import Objective
from ssl_core.rng import sample_seeds
from ssl_core.spec import PretrainSpec, RunOrder, TrainPlan
from ssl_core.splits import held_out
from ssl_core.trainer import train

_HEALTH_SAMPLES = 512
_PROBE_SAMPLES = 5000
_VALIDATION_BATCHES = 4
_GUARD_SAMPLES = 128
_SHOWN = 6


@dataclass(frozen=True)
class Labelled:
    """The probe's data: labelled samples of a prepared dataset."""

    source: Source
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]


class PretrainEvaluation:
    """Validation loss on held-out samples, health of plain views, and the probe where one is named.

    The health numbers are of 512 documents where there are so many: the held-out ones first, where the objective's
    samples are documents, then others of the pool.
    """

    def __init__(
        self, spec: PretrainSpec, loader: Loader, validation: NDArray[np.int64], probe: Labelled | None
    ) -> None:
        self._objective, self._loader, self._validation, self._probe = spec.objective, loader, validation, probe
        self._every = spec.probe.every_steps if spec.probe is not None else None
        everything = np.random.Generator(np.random.Philox(key=[loader.seed, 4])).permutation(
            loader.source.count("document")
        )
        first = validation if loader.unit == "document" else validation[:0]
        rest = everything[~np.isin(everything, first)]
        # Twice as many vectors as a usual width, or the number of vectors would cap the rank.
        self.documents = np.sort(np.concatenate([first, rest])[:_HEALTH_SAMPLES])
        compared = self._objective.comparable_loss and len(validation) > 0
        self.watched = "probe/linear_accuracy" if probe is not None else "validation/loss" if compared else None
        self.lower_is_better = probe is None
        enough = len(self.documents) >= _GUARD_SAMPLES
        judged = (spec.on_collapse, self._objective.alive, self._objective.constant_wins)
        self.guard = Guard(self._pulse, *judged) if enough else None

    def every(self, total_steps: int, steps_per_epoch: int) -> int:
        """As the probe says, else ten times in the run."""
        return self._every or max(1, total_steps // 10)

    def measure(self, nets: Nets) -> dict[str, float]:
        """`validation/…`, `health/…` and `probe/…`."""
        device = next(nets.parameters()).device
        values = self._validation_losses(nets, device)
        source, modality = self._loader.source, self._loader.modality
        if len(self.documents) >= 2:
            values |= health.health(features(nets.encoder, source, modality, self.documents, device))
        if self._probe is not None:
            vectors = features(nets.encoder, self._probe.source, modality, self._probe.indices, device)
            values |= probe_scores(vectors, self._probe.labels, self._loader.seed)
        return values

    def _pulse(self, nets: Nets) -> Pulse:
        """Of evenly spaced documents."""
        chosen = self.documents[np.linspace(0, len(self.documents) - 1, _GUARD_SAMPLES).astype(np.int64)]
        device = next(nets.parameters()).device
        found = health.spread(features(nets.encoder, self._loader.source, self._loader.modality, chosen, device))
        return {name.removeprefix("health/"): value for name, value in found.items()}

    def warnings(self, metrics: dict[str, float]) -> dict[str, str]:
        return health.warnings(metrics)

    def _alignment(self, nets: Nets, batch: Batch) -> dict[str, float]:
        """Where the objective sees one sample in two views of a kind."""
        if len(self._loader.views) < 2 or self._loader.views[0] != self._loader.views[1]:
            return {}
        first, second = (nets.encoder(view) for view in batch.views[:2])
        return {"alignment": health.alignment(first, second)}

    def _validation_losses(self, nets: Nets, device: torch.device) -> dict[str, float]:
        """Means over at most four batches whose seeds never change, so that the curve shows the weights alone."""
        loader, sums, batches = self._loader, dict[str, float](), 0
        size = min(loader.batch_size, len(self._validation))
        if size == 0:
            return {}
        for start in range(0, min(len(self._validation), _VALIDATION_BATCHES * size) - size + 1, size):
            samples = self._validation[start : start + size]
            seeds = sample_seeds(loader.seed, 0, torch.from_numpy(samples.copy()))
            batch = make_batch(
                loader.modality, loader.views, read_slice(loader.source, loader.unit, samples, seeds), device
            )
            values = {name: float(value) for name, value in self._objective.loss(nets, batch).items()}
            for name, value in (values | self._alignment(nets, batch)).items():
                sums[name] = sums.get(name, 0.0) + value
            batches += 1
        return {f"validation/{name}": value / batches for name, value in sorted(sums.items())}


def pretrain(order: RunOrder, spec: PretrainSpec, context: RunContext) -> dict[str, Any]:
    """Run a resolved pretraining spec to its verdict (the content of `result.json`).

    Raises:
        EngineError: whatever is wrong with the spec, the data or the machine.
    """
    if spec.modality is None or spec.backbone is None:
        raise SpecError("unresolved", "modality and backbone must be resolved before a run", "modality")
    plan, device = TrainPlan.of(spec), distributed.device()
    base = open_base(Path(order.model)) if order.model else None
    context.emit("stage", stage="preparing")
    given = base.tokenizer if base is not None else None
    folder = prepared(spec.modality, Path(order.datasets[spec.dataset]), Path(order.cache), given, context)
    source = spec.modality.open(folder)
    torch.manual_seed(spec.seed)
    facts = base.facts if base is not None else source.facts
    encoder = build_encoder(spec.backbone, facts)
    if base is not None:
        base.load_encoder(encoder)
    nets = spec.objective.build(encoder)
    if base is not None:
        base.load_parts(nets)
    nets.to(device)
    count = source.count(spec.modality.views[spec.objective.views[0]])
    kept, validation = held_out(count, plan.validation_fraction, spec.seed)
    loader = Loader(
        source, spec.modality, spec.objective.views, indices=kept, batch_size=plan.batch_size, seed=spec.seed
    )
    warn_of_small_batch(loader, plan, context)
    probe = _probe(order, spec, spec.modality, folder, context)
    evaluation = PretrainEvaluation(spec, loader, validation, probe)
    resume = checkpoint.first_good([Path(path) for path in order.checkpoints], context)
    context.emit("stage", stage="training")
    outcome: Outcome = train(TrainStep(spec.objective, nets), loader, plan, context, evaluation, resume)
    if outcome.status == "done" and len(evaluation.documents) >= 2 and distributed.is_main():
        vectors = features(nets.encoder, source, spec.modality, evaluation.documents, device)
        neighbours.tell(context, source, folder, evaluation.documents, vectors, outcome.state.step)
    if outcome.status == "done" and distributed.is_main():
        shown = (validation if len(validation) else kept)[:_SHOWN]
        _show(spec.objective, nets, loader, shown, Show(context, folder, outcome.state.step))
    tokenizer = folder / "tokenizer.json"
    card = Card(
        order,
        spec,
        spec.modality,
        facts,
        [],
        outcome.state.metrics | outcome.state.best_metrics,
        outcome.state.step if outcome.state.best is None else outcome.state.best_step,
        outcome.state.step,
        outcome.state.elapsed,
        _int8(nets, loader, evaluation) if outcome.status == "done" and distributed.is_main() else None,
    )
    return finish(context, Finished(nets, outcome, card, tokenizer if tokenizer.exists() else None))


def _int8(nets: Nets, loader: Loader, evaluation: PretrainEvaluation) -> dict[str, Any] | None:
    """On documents of the pool."""
    return precision.int8_told(nets.encoder, loader.source, loader.modality, evaluation.documents)


def _show(objective: Objective, nets: Nets, loader: Loader, samples: NDArray[np.int64], show: Show) -> None:
    """The objective's samples and the encoder's attention, of what was held out where anything was."""
    nets.eval()
    seeds = sample_seeds(loader.seed, 0, torch.from_numpy(samples.copy()))
    part = read_slice(loader.source, loader.unit, samples, seeds)
    device = next(nets.parameters()).device
    with torch.no_grad(), distributed.alone():
        batch = make_batch(loader.modality, loader.views, part, device)
        objective.samples(nets, batch, show)
        attention.tell(nets.encoder, batch.views, show)


def warn_of_small_batch(loader: Loader, plan: TrainPlan, context: RunContext) -> None:
    """Tell the user where the data has fewer samples than a batch."""
    if loader.batch_size < plan.batch_size:
        text = f"only {loader.batch_size} samples to train on: every step uses all, instead of {plan.batch_size}"
        context.emit("message", level="warning", code="batch_clamped", message=text)


def _probe(
    order: RunOrder, spec: PretrainSpec, modality: Modality, folder: Path, context: RunContext
) -> Labelled | None:
    if spec.probe is None:
        return None
    tokenizer = folder / "tokenizer.json"
    dataset = Path(order.datasets[spec.probe.dataset])
    source = modality.open(
        prepared(modality, dataset, Path(order.cache), tokenizer if tokenizer.exists() else None, context)
    )
    labels = np.asarray(source.labels if source.labels is not None else [], dtype=np.int64)
    indices = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[indices])) < 2:
        raise SpecError("no_classes", "the probe's dataset needs labels of at least two classes", "probe.dataset")
    generator = np.random.Generator(np.random.Philox(key=[spec.seed, 5]))
    indices = np.sort(generator.permutation(indices)[:_PROBE_SAMPLES])
    if np.unique(labels[indices], return_counts=True)[1].max() < 2:
        # Half of each class is scored; a class of one has no such half.
        text = "the probe's dataset needs a class with at least two labelled rows: one to fit, one to score"
        raise SpecError("no_classes", text, "probe.dataset")
    return Labelled(source, indices, labels[indices])
