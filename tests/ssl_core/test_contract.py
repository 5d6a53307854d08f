"""The contract of every objective and task: a new file beside the others is tested here the moment it lands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch
from ssl_core.context import MemoryContext
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader
from ssl_core.data.restated import Restated
from ssl_core.encoders import build_encoder
from ssl_core.modalities import Modality
from ssl_core.modalities.base import Source
from ssl_core.nets import Nets
from ssl_core.objectives import OBJECTIVES
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.targets import TARGETS
from ssl_core.tasks import TASKS
from tests.ssl_core import datasets
from tests.ssl_core.toys import LEARNERS, SHAPES, TOYS


@dataclass(frozen=True)
class Case:
    """A learner on a modality it fits."""

    kind: str
    name: str
    modality: str

    def __str__(self) -> str:
        return f"{self.name}-{self.modality}"

    def spec(self, **fields: Any) -> dict[str, Any]:
        """A spec for the toy dataset."""
        chosen = {"name": self.name, **LEARNERS.get(self.name, {})}
        learner = {"objective": chosen} if self.kind == "pretrain" else {"task": chosen}
        shape = {"modality": self.settings(), "backbone": self.backbone()}
        common = {"dataset": "ds_toy", **shape, "batch_size": 8, "seed": 5}
        return {"type": self.kind, **learner, **common, **fields}

    def settings(self) -> Modality:
        """The toy's preparation, as the learner wants it."""
        suited = TOYS[self.modality].modality
        if self.kind == "pretrain":
            return OBJECTIVES[self.name]().preparation(suited)
        return TASKS[self.name](**LEARNERS.get(self.name, {})).reading(suited)

    def backbone(self) -> dict[str, Any]:
        """A small encoder that the learner takes."""
        learner = OBJECTIVES[self.name] if self.kind == "pretrain" else TASKS[self.name]
        return {**TOYS[self.modality].backbone(getattr(learner, "encoders", ())), **SHAPES.get(self.name, {})}


CASES = [
    Case(kind, name, modality)
    for kind, learners in (("pretrain", OBJECTIVES), ("finetune", TASKS))
    for name, learner in learners.items()
    for modality in learner.modalities
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@dataclass
class Made:
    """A learner, built, with one batch of its own."""

    learner: Any
    nets: Nets
    batch: Batch


def make(case: Case, folder: Path) -> Made:
    torch.set_num_threads(1)
    modality = case.settings()
    data = TOYS[case.modality].write(folder / "data")
    shards = prepared(modality, data, folder / "cache", None, MemoryContext(folder))
    source: Source = modality.open(shards)
    kinds: Any = OBJECTIVES if case.kind == "pretrain" else TASKS
    learner = kinds[case.name](**LEARNERS.get(case.name, {}))
    if getattr(learner, "target", "label") != "label":
        targets = TARGETS[learner.target].open(shards)
        source = Restated(source, source.facts, targets.classes, targets)
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate({**case.backbone(), "dropout": 0.0}), source.facts)
    nets = learner.build(encoder) if case.kind == "pretrain" else learner.build(encoder, source.classes)
    views = learner.views if case.kind == "pretrain" else learner.training_views(modality)
    unit = modality.views[views[0]]
    loader = Loader(source, modality, views, indices=np.arange(source.count(unit)), batch_size=16, seed=3)
    return Made(learner, nets.train(), loader.batch(loader.read(0), torch.device("cpu")))


@every_case
def test_its_loss_is_finite_and_falls_on_a_batch_it_may_learn_by_heart(case: Case, tmp_path: Path) -> None:
    made = make(case, tmp_path)
    optimizer = torch.optim.AdamW(made.nets.parameters(), lr=3e-3)
    # A teacher is a target that moves; by heart it can be learned only where it stands still.
    taught = "teacher" in made.nets.parts
    made.nets.train(not taught)
    losses = []
    for step in range(30):
        values = made.learner.loss(made.nets, made.batch)
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        if not taught:
            made.learner.after_step(made.nets, step / 30)
        # No cross-entropy falls below the entropy of its targets.
        losses.append(float(values["loss"].detach() - values.get("teacher_entropy", 0.0)))
    assert all(math.isfinite(value) for value in losses)
    assert losses[-1] < 0.8 * losses[0]


@every_case
def test_training_moves_every_parameter_but_a_teachers(case: Case, tmp_path: Path) -> None:
    made = make(case, tmp_path)
    trained = {name: parameter for name, parameter in made.nets.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    # Adam: a gradient however small moves its parameter, by more than rounding takes away.
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3)
    for step in range(3):
        optimizer.zero_grad()
        made.learner.loss(made.nets, made.batch)["loss"].backward()
        assert not [name for name, parameter in trained.items() if parameter.grad is None]
        optimizer.step()
        made.learner.after_step(made.nets, (step + 1) / 3)
    still = [name for name, parameter in trained.items() if torch.equal(parameter, before[name])]
    assert not still


@every_case
def test_its_extra_values_are_detached_scalars(case: Case, tmp_path: Path) -> None:
    made = make(case, tmp_path)
    values = made.learner.loss(made.nets, made.batch)
    assert values["loss"].shape == ()
    assert all(value.shape == () and not value.requires_grad for name, value in values.items() if name != "loss")


@every_case
def test_its_loss_depends_on_weights_and_batch_alone(case: Case, tmp_path: Path) -> None:
    made = make(case, tmp_path)
    made.nets.eval()
    torch.manual_seed(1)
    first = made.learner.loss(made.nets, made.batch)["loss"]
    torch.manual_seed(2)
    assert torch.equal(first, made.learner.loss(made.nets, made.batch)["loss"])


@every_case
def test_a_run_stopped_twice_ends_with_the_bits_of_one_left_alone(case: Case, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = {"ds_toy": TOYS[case.modality].write(tmp_path / "data")}
    spec = (
        case.spec(budget={"steps": 24}, probe={"dataset": "ds_toy"})
        if case.kind == "pretrain"
        else case.spec(budget={"steps": 24})
    )
    whole = tmp_path / "whole"
    datasets.order(whole, spec, data)
    assert run(whole, FileContext(whole))["status"] == "succeeded"

    checkpoints: list[str] = []
    points: dict[tuple[int, str], Any] = {}
    # In the middle of an epoch, then where the first one may end, then to the end.
    for attempt, steps in enumerate((5, 3, 1000)):
        part = tmp_path / f"part{attempt}"
        datasets.order(part, spec, data, checkpoints=checkpoints)
        verdict = run(part, datasets.Interrupted(part, after=steps))
        points |= datasets.series(part)
        checkpoints = [str(path) for path in sorted((part / "checkpoints").glob("step-*"), reverse=True)]
    assert verdict["status"] == "succeeded"
    model = "artifact/model.safetensors"
    assert (part / model).read_bytes() == (whole / model).read_bytes()
    assert points == datasets.series(whole)
