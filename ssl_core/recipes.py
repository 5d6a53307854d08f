"""From what a user sent to a spec with every number in it. Imports without torch.

`resolve` fills each None by the recipe of the modality, the objective and the queue, then checks the whole against the
data and the machine. A resolved spec resolves to itself, so sending back what the API showed repeats the run.

Recipes, with what they cost (two CPU cores) and what to expect:

* text, `cpu` queue: span contrast with one wide layer (`text-shallow`) and a vocabulary of up to 16,384, 128 pairs of
  spans a step; makes few-label classification work in minutes. Masked modelling with `text-tiny`, 32 rows of 256
  tokens a step, needs far longer for that. Denoising has a decoder beside it and, where whole documents are written,
  logits at every token, so a step costs more.
* image, `cpu`: a small conv net at the pictures' own size up to 64 px, 256 pictures a step, up to 3,000 steps; a linear
  probe of its features beats raw pixels well before the end (8 px digits, 5 labels a class: 0.92 after 80 steps, raw
  pixels 0.87).
* audio, `cpu`: SimCLR of log-mel pictures with a conv net that quarters them at once, 128 clips a step, 100 passes, at
  most 3,000 steps: 2,700 spoken digits take about 10 minutes of one core.
* `gpu` queue: the base Transformer or a ResNet-18, bf16, larger batches.
* fine-tuning: minutes; held-out labels stop it early.
"""

from __future__ import annotations

import math
import os
from typing import Any, Literal, TypeVar

from ssl_core.backbones import FAMILIES, EncoderSpec
from ssl_core.errors import SpecError
from ssl_core.estimates import (
    Estimate,
    encoder_parameters,
    memory_bytes,
    spared_bytes,
    steps_of,
    tokens_per_sample,
)
from ssl_core.low_rank import adapter_parameters
from ssl_core.modalities import MODALITIES
from ssl_core.modalities.base import Modality
from ssl_core.objectives.base import Objective
from ssl_core.spec import Budget, DatasetFacts, FinetuneSpec, ModelFacts, PretrainSpec
from ssl_core.targets import TARGETS
from ssl_core.tasks.base import Task

__all__ = ["Estimate", "estimate", "resolve"]

Spec = TypeVar("Spec", PretrainSpec, FinetuneSpec)
_GPU_BYTES = 141 * 10**9
"""The largest single GPU in common use; the worker itself answers with class `oom` where its own is smaller."""
_SOLVED = ("linear_probe", "knn")
"""Modes of tasks that train nothing."""


def resolve(
    spec: Spec,
    dataset: DatasetFacts,
    base: ModelFacts | None = None,
    *,
    memory_limit: int | None = None,
    cpu_precision: Literal["fp32", "bf16"] = "fp32",
) -> Spec:
    """The spec with nothing left to choose.

    Args:
        spec: as sent.
        dataset: facts of `spec.dataset`.
        base: facts of `spec.model`, where it names one.
        memory_limit: bytes a run may take; None = this machine's memory (queue `cpu`) or a large GPU's.
        cpu_precision: what the workers of queue `cpu` are faster with (`ssl_core.machine`).

    Raises:
        SpecError: `modality_mismatch`, `backbone_mismatch`, `dataset_too_small`, `no_classes`, `infeasible_config`;
            `param` is the field to change.
    """
    if dataset.rows < 2:
        raise SpecError(
            "dataset_too_small", f"the dataset has {dataset.rows} rows; training needs at least 2", "dataset"
        )
    if spec.precision is None:
        fastest: Literal["fp32", "bf16"] = "bf16" if spec.resources.queue == "gpu" else cpu_precision
        spec = spec.model_copy(update={"precision": fastest})
    if spec.compile is None:
        spec = spec.model_copy(update={"compile": spec.resources.queue == "gpu"})
    learner = _check_modality(spec, dataset)
    modality = _modality(spec, dataset, base)
    backbone = _backbone(spec, modality, base)
    _check_backbone(learner, backbone, modality)
    modality.check(backbone, dataset)
    if isinstance(spec, PretrainSpec):
        filled = _pretrain(spec, dataset, modality, backbone)
    else:
        _check_labels(spec, dataset)
        _check_start(spec)
        filled = _finetune(spec, dataset, modality, backbone)
    resolved = spec.model_copy(update={"modality": modality, "backbone": backbone, **filled})
    if filled["batch_size"] < spec.resources.processes:
        text = (
            f"batch_size {filled['batch_size']} leaves some of the {spec.resources.processes} processes without samples"
        )
        raise SpecError("infeasible_config", text, "resources.processes")
    _check_memory(resolved, learner, modality, backbone, memory_limit)
    return resolved


def estimate(spec: PretrainSpec | FinetuneSpec, dataset: DatasetFacts) -> Estimate:
    """Steps, parameters and bytes of a resolved spec."""
    if spec.modality is None or spec.backbone is None or spec.budget is None or spec.batch_size is None:
        raise SpecError("unresolved", "only a resolved spec can be estimated; call resolve first")
    learner = _learner(spec)
    views = learner.views if isinstance(learner, Objective) else learner.training_views(spec.modality)
    unit = spec.modality.views[views[0]]
    count = spec.modality.samples(dataset, unit) if isinstance(spec, PretrainSpec) else _labelled(spec, dataset)
    size = tokens_per_sample(dataset, spec.modality, views)
    return Estimate(
        steps=steps_of(spec.budget, count, spec.batch_size, size),
        examples_per_epoch=count,
        parameters=encoder_parameters(spec.backbone, spec.modality),
        trained_parameters=_trained(learner, spec.modality, spec.backbone),
        memory_bytes=_memory(spec, learner, spec.modality, spec.backbone),
    )


def _learner(spec: PretrainSpec | FinetuneSpec) -> Objective | Task:
    return spec.objective if isinstance(spec, PretrainSpec) else spec.task


def _check_modality(spec: PretrainSpec | FinetuneSpec, dataset: DatasetFacts) -> Objective | Task:
    learner = _learner(spec)
    where = "objective" if isinstance(spec, PretrainSpec) else "task"
    if dataset.modality not in learner.modalities:
        text = f"{learner.name} fits {', '.join(learner.modalities)} and this dataset is {dataset.modality}"
        raise SpecError("modality_mismatch", text, f"{where}.name")
    if spec.modality is not None and spec.modality.name != dataset.modality:
        text = f"modality is {spec.modality.name} and the dataset is {dataset.modality}"
        raise SpecError("modality_mismatch", text, "modality.name")
    return learner


def _modality(spec: PretrainSpec | FinetuneSpec, dataset: DatasetFacts, base: ModelFacts | None) -> Modality:
    if base is not None:
        if base.modality.name != dataset.modality:
            text = f"the model reads {base.modality.name} and this dataset is {dataset.modality}"
            raise SpecError("modality_mismatch", text, "model")
        read = _read(spec, base.modality)
        if spec.modality not in (None, base.modality, read):
            text = "leave modality out or send the base model's: its tokenizer and picture size belong to its weights"
            raise SpecError("modality_mismatch", text, "modality")
        return read
    if spec.modality is not None:
        return _read(spec, spec.modality)
    return _learner(spec).preparation(MODALITIES[dataset.modality].suited(dataset))


def _read(spec: PretrainSpec | FinetuneSpec, modality: Modality) -> Modality:
    """As the task reads with these settings."""
    return spec.task.reading(modality) if isinstance(spec, FinetuneSpec) else modality


def _backbone(spec: PretrainSpec | FinetuneSpec, modality: Modality, base: ModelFacts | None) -> EncoderSpec:
    if base is None:
        return spec.backbone or _learner(spec).backbone(modality, spec.resources.queue)
    if spec.backbone is not None and spec.backbone != base.backbone:
        text = f"backbone must be left out or equal the base model's ({base.backbone.name})"
        raise SpecError("backbone_mismatch", text, "backbone")
    return base.backbone


def _check_backbone(learner: Objective | Task, backbone: EncoderSpec, modality: Modality) -> None:
    allowed = [family for family, (names, _) in FAMILIES.items() if modality.name in names]
    wanted = getattr(learner, "encoders", ())
    allowed = [family for family in allowed if not wanted or family in wanted]
    if backbone.family not in allowed:
        families = " or ".join(allowed)
        text = f"{learner.name} on {modality.name} needs a backbone of family {families}, not {backbone.family}"
        raise SpecError("backbone_mismatch", text, "backbone.family")
    learner.check(backbone)


def _check_labels(spec: FinetuneSpec, dataset: DatasetFacts) -> None:
    task = spec.task
    known = task.labels(dataset)
    if task.target != "label" and known.rows < 2:
        column = TARGETS[task.target].columns[0]
        text = (
            f"{task.name} learns from {column}, which {known.rows} rows of this dataset have; at least 2 are needed. "
            f'Which column holds them is said at upload: columns={{"{column}": "..."}}'
        )
        raise SpecError("no_targets", text, "dataset")
    if known.rows < 2 or len(known.classes) < task.least_classes:
        found = ", ".join(known.classes[:20]) or "none"
        text = (
            f"{task.name} needs labelled rows of at least two classes; "
            f"this dataset has {known.rows} labelled rows, classes: {found}"
        )
        raise SpecError("no_classes", text, "dataset")


def _check_start(spec: FinetuneSpec) -> None:
    """Adapters of low rank change a network a little: they cannot make one from scratch."""
    if spec.task.low_rank() is not None and (spec.model is None or spec.initialization == "random"):
        param = "model" if spec.model is None else "initialization"
        text = "mode lora adapts a pretrained model: name one in model, with initialization pretrained"
        raise SpecError("no_pretrained_model", text, param)


def _pretrain(spec: PretrainSpec, dataset: DatasetFacts, modality: Modality, backbone: EncoderSpec) -> dict[str, Any]:
    unit = modality.views[spec.objective.views[0]]
    count = modality.samples(dataset, unit)
    fraction = 0.05 if spec.validation_fraction is None else spec.validation_fraction
    kept = max(1, count - round(count * fraction)) if count >= 10 else count
    usual = modality.batches[unit][spec.resources.queue == "gpu"]
    batch = _batch_size(spec.batch_size, usual, kept if unit == "document" else None)
    longest = 3_000 if spec.resources.queue == "cpu" else 50_000
    budget = spec.budget or Budget(steps=max(200, min(longest, modality.epochs * kept // batch)))
    filled = _training(spec, modality, backbone) | {
        "batch_size": batch,
        "validation_fraction": fraction,
        "budget": budget,
    }
    if spec.probe is not None and spec.probe.every_steps is None:
        steps = steps_of(budget, kept, batch, tokens_per_sample(dataset, modality, spec.objective.views))
        every = max(1, steps // 10) if steps is not None else None
        filled["probe"] = spec.probe.model_copy(update={"every_steps": every})
    return filled


def _finetune(spec: FinetuneSpec, dataset: DatasetFacts, modality: Modality, backbone: EncoderSpec) -> dict[str, Any]:
    fraction = spec.validation_fraction
    if fraction is None:
        # A probe is solved, not stopped early: it has no use for labels held out.
        probe = getattr(spec.task, "mode", "") in _SOLVED
        fraction = 0.0 if probe or spec.validation_dataset is not None else 0.2
    task = spec.task
    labelled = task.labels(dataset).rows
    kept = max(2, round(labelled * (1 - fraction)))
    batch = _batch_size(spec.batch_size, task.usual_batch, labelled)
    budget = spec.budget or Budget(steps=max(100, min(3_000, math.ceil(40 * kept / batch))))
    filled = _training(spec, modality, backbone) | {
        "batch_size": batch,
        "validation_fraction": fraction,
        "budget": budget,
    }
    filled["patience"] = spec.patience if spec.patience is not None else 8
    if spec.model is None:
        filled["initialization"] = "random"
    return filled


def _training(spec: PretrainSpec | FinetuneSpec, modality: Modality, backbone: EncoderSpec) -> dict[str, Any]:
    """The learning rate; a pretrained encoder is tuned at the share that the task names."""
    rate = spec.optimizer.learning_rate
    if rate is None:
        rate = round(_learner(spec).rate * _usual_rate(backbone), 7)
        if isinstance(spec, FinetuneSpec) and spec.model is not None and spec.initialization == "pretrained":
            share = spec.task.pretrained_rate if spec.task.low_rank() is None else spec.task.adapter_rate
            rate = round(rate * share, 7)
    return {"optimizer": spec.optimizer.model_copy(update={"learning_rate": rate})}


def _usual_rate(backbone: EncoderSpec) -> float:
    """3e-3, falling with the root of the width, from 32 on for conv nets, from 256 on for Transformers, and there with
    the root of the depth too; of two towers the lower one, as one optimizer trains both.

    A Transformer of 12 layers of 768 gets the 5e-4 of CLIP's ViT-B, and of DINO at 256 pictures a step.
    """
    if backbone.image is not None and backbone.text is not None:
        return min(_usual_rate(backbone.image), _usual_rate(backbone.text))
    layered = backbone.family in ("transformer", "vit")
    scale = math.sqrt((256 if layered else 32) / backbone.width / (backbone.depth if layered else 1))
    return round(3e-3 * min(1.0, scale), 6)


def _batch_size(given: int | None, usual: int, rows: int | None) -> int:
    """As sent, where the data has so many rows; else the recipe's, cut to the data."""
    if given is None:
        return usual if rows is None else max(1, min(usual, rows))
    if rows is not None and given > rows:
        text = f"batch_size {given} is over the {rows} rows there are to train on"
        raise SpecError("infeasible_config", text, "batch_size")
    return given


def _labelled(spec: FinetuneSpec, dataset: DatasetFacts) -> int:
    return max(1, round(spec.task.labels(dataset).rows * (1 - (spec.validation_fraction or 0.0))))


def _memory(
    spec: PretrainSpec | FinetuneSpec, learner: Objective | Task, modality: Modality, backbone: EncoderSpec
) -> int:
    batch = math.ceil((spec.batch_size or 1) / spec.resources.processes)
    layers = learner.decoder_layers(backbone)
    needed = memory_bytes(backbone, modality, batch, learner.views, spec.precision == "bf16", layers)
    low = learner.low_rank() if isinstance(learner, Task) else None
    return needed if low is None else needed - spared_bytes(backbone, modality, low)


def _trained(learner: Objective | Task, modality: Modality, backbone: EncoderSpec) -> int:
    """Weights of the encoder, or beside it, that get a gradient."""
    if getattr(learner, "mode", "") in _SOLVED:
        return 0
    low = learner.low_rank() if isinstance(learner, Task) else None
    return encoder_parameters(backbone, modality) if low is None else adapter_parameters(low, backbone)


def _check_memory(
    spec: PretrainSpec | FinetuneSpec,
    learner: Objective | Task,
    modality: Modality,
    backbone: EncoderSpec,
    limit: int | None,
) -> None:
    needed = _memory(spec, learner, modality, backbone)
    if limit is None:
        limit = (
            _GPU_BYTES if spec.resources.queue == "gpu" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        )
    if needed > limit:
        text = (
            f"predicted memory {needed / 2**30:.1f} GiB is over the {limit / 2**30:.1f} GiB there are; "
            f"use a smaller batch_size (now {spec.batch_size}) or a smaller backbone"
        )
        raise SpecError("infeasible_config", text, "batch_size")
