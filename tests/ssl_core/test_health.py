"""The numbers that tell a living representation from a collapsed one."""

from __future__ import annotations

import torch

from ssl_core.health import effective_rank, health, warnings


def test_the_effective_rank_of_equal_singular_values_is_their_number() -> None:
    assert abs(effective_rank(torch.eye(64)[:, :10]) - 10) < 0.01


def test_the_effective_rank_follows_the_formula_of_rankme() -> None:
    # Singular values 3 and 1: shares 0.75 and 0.25, exp of their entropy.
    assert abs(effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) - 1.7548) < 1e-3


def test_vectors_on_one_line_have_rank_one_and_raise_a_warning() -> None:
    line = torch.ones(256, 64) + 1e-5 * torch.randn(256, 64)
    values = health(line)
    assert values["health/effective_rank"] < 1.1
    assert values["health/dead_dimensions"] == 64
    assert "collapse" in warnings(values)


def test_gaussian_vectors_are_healthy() -> None:
    torch.manual_seed(0)
    values = health(torch.randn(512, 64))
    assert values["health/effective_rank_share"] > 0.9
    assert abs(values["health/spread_mean"] - 1) < 0.05
    assert warnings(values) == {}


def test_dead_dimensions_are_counted() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(256, 32)
    vectors[:, :5] = 0.0
    assert health(vectors)["health/dead_dimensions"] == 5
