"""The optimizer, its groups and its schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ssl_core.optim import build_optimizer, optimizer_tensors, rate_factor, restore_optimizer, set_rate
from ssl_core.spec import OptimizerSpec


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.head = nn.Linear(4, 2)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        self.head(self.encoder(torch.ones(3, 4))).square().sum().backward()
        optimizer.step()


def test_biases_and_norms_are_not_decayed_and_the_encoder_learns_at_its_share() -> None:
    toy = Toy()
    optimizer = build_optimizer(toy, OptimizerSpec(encoder_learning_rate_scale=0.1, weight_decay=0.05), 1e-2)
    set_rate(optimizer, 1e-2)
    for group in optimizer.param_groups:
        shapes = {parameter.ndim for parameter in group["params"]}
        assert group["weight_decay"] == (0.05 if shapes == {2} else 0.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(toy.encoder[0].weight)] == pytest.approx(1e-3) and rates[id(toy.head.weight)] == pytest.approx(1e-2)


def test_frozen_parameters_are_left_out() -> None:
    toy = Toy()
    toy.encoder.requires_grad_(False)
    optimizer = build_optimizer(toy, OptimizerSpec(), 1e-2)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_state_by_name_restores_the_next_step_exactly(name: str) -> None:
    spec = OptimizerSpec.model_validate({"name": name})
    first, second = Toy(), Toy()
    one, two = build_optimizer(first, spec, 1e-2), build_optimizer(second, spec, 1e-2)
    first.step(one), first.step(one)
    second.load_state_dict(first.state_dict())
    restore_optimizer(two, second, optimizer_tensors(one, first))
    first.step(one), second.step(two)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_schedule_warms_up_linearly_and_decays_as_named() -> None:
    spec = OptimizerSpec(warmup_fraction=0.1)
    assert [rate_factor(spec, step, 100) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate_factor(spec, 55, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert rate_factor(spec, 100, 100) == pytest.approx(0.0)
    linear = OptimizerSpec(warmup_fraction=0.0, schedule="linear")
    assert rate_factor(linear, 25, 100) == pytest.approx(0.75)
    assert rate_factor(OptimizerSpec(warmup_fraction=0.0, schedule="constant"), 99, 100) == 1.0
