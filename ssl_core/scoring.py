"""Labelled samples and a task's scores on them: what fine-tuning and evaluation share. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import distributed
from ssl_core.context import RunContext
from ssl_core.data.restated import Restated
from ssl_core.durable import write_json
from ssl_core.errors import SpecError
from ssl_core.evaluation.confusion import picture
from ssl_core.evaluation.features import plain_batches
from ssl_core.evaluation.samples import Show
from ssl_core.modalities.base import Modality, Source
from ssl_core.nets import Nets
from ssl_core.targets import TARGETS
from ssl_core.tasks.base import Task

_SHOWN = 8
"""Samples that a task's own pictures and texts are made of."""


@dataclass(frozen=True)
class Split:
    """Labelled samples of a source; `folder` is where it was prepared."""

    source: Restated
    modality: Modality
    indices: NDArray[np.int64]
    folder: Path

    def truth(self) -> dict[str, Tensor]:
        """What they are labelled with, first dimension len(indices); see `Task.metrics`."""
        return {name: torch.from_numpy(values) for name, values in self.source.truth(self.indices).items()}


@torch.no_grad()
def predictions(task: Task, nets: Nets, split: Split, quick: bool = False) -> dict[str, Tensor]:
    """The task's outputs for a split, in its order and on the CPU, filled up as `Task.metrics` says.

    Args:
        quick: no more of them than `Task.glance` gives.
    """
    device = next(nets.parameters()).device
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for positions, batch in plain_batches(split.source, split.modality, split.indices, device):
        told = task.glance(nets, batch) if quick else task.spelled(task.predict(nets, batch), split.folder)
        for name, value in told.items():
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


def labelled(
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


def score(task: Task, nets: Nets, split: Split, context: RunContext, step: int) -> dict[str, float]:
    """The task's metrics on a split; `sample`s: the confusion matrix (up to 100 classes) and what the task shows."""
    context.emit("stage", stage="evaluating")
    nets.eval()
    outputs, truth = predictions(task, nets, split), split.truth()
    calls = task.calls(outputs, truth)
    if calls is not None and distributed.is_main():
        show_confusion(calls, split.source.classes, context, step)
    if distributed.is_main():
        show_samples(task, nets, split, context, step)
    return dict(sorted(task.metrics(outputs, truth).items()))


@torch.no_grad()
def show_samples(task: Task, nets: Nets, split: Split, context: RunContext, step: int) -> None:
    """What the task shows of a few samples that are spread over the split."""
    places = np.unique(np.linspace(0, len(split.indices) - 1, _SHOWN).round().astype(np.int64))
    device = next(nets.parameters()).device
    with distributed.alone():
        for _, batch in plain_batches(split.source, split.modality, split.indices[places], device):
            task.samples(nets, batch, split.source.classes, Show(context, split.folder, step))


def show_confusion(calls: tuple[Tensor, Tensor], classes: list[str], context: RunContext, step: int) -> None:
    """Keep the confusion matrix of (n,) called and true classes as `sample`s, numbers and a picture, of up to 100
    classes."""
    if len(classes) <= 100:
        counts = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        called, true = calls
        counts.index_put_((true, called), torch.ones_like(called), accumulate=True)
        (context.workdir / "samples").mkdir(exist_ok=True)
        path = "samples/confusion.json"
        write_json(context.workdir / path, {"classes": classes, "counts": counts.tolist()})
        caption = "counts[i][j]: samples of class i that were called class j"
        kind = "application/json"
        context.emit("sample", step=step, name="confusion", path=path, media_type=kind, caption=caption)
        drawn = "samples/confusion_picture.png"
        picture(counts, classes).save(context.workdir / drawn)
        caption = "rows: true classes, columns: what they were called, darker: a greater share of the row"
        context.emit(
            "sample", step=step, name="confusion_picture", path=drawn, media_type="image/png", caption=caption
        )
