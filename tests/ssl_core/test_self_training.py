"""Self-training: what it gains where a pool has the labels' classes, and what keeps it from harm elsewhere."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from ssl_core.logistic import Choice, choose, solve, solve_from
from ssl_core.self_training import TRUSTS, aligned, learn, surest
from ssl_core.tasks.classification import Classification

CLASSES, WIDTH = 3, 20


def clouds(counts: tuple[int, ...], seed: int, apart: float = 2.2) -> tuple[Tensor, Tensor]:
    """Rows of each class around its centre."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(7))
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.tensor(counts))
    shifted = apart * F.normalize(centres, dim=1)[labels]
    return shifted + torch.randn(len(labels), WIDTH, generator=generator), labels


def right(layer: tuple[Tensor, Tensor], rows: Tensor, labels: Tensor) -> float:
    return float((F.linear(rows, *layer).argmax(1) == labels).double().mean())


def test_few_labels_and_a_pool_of_their_classes_tell_more_than_the_labels_alone() -> None:
    gains = []
    for seed in range(4):
        (seen, labels), (pool, _), (new, truth) = clouds((4,) * 3, seed), clouds((300,) * 3, 50), clouds((200,) * 3, 99)
        first = choose(seen, labels, torch.ones(CLASSES))
        found = learn(seen, labels, torch.ones(CLASSES), pool, first)
        plain = solve(seen, labels, torch.ones(CLASSES), first.penalty)
        gains.append(right((found.weight, found.bias), new, truth) - right(plain, new, truth))
        assert found.trust is None or found.loss < found.plain_loss
    assert sum(gains) / len(gains) > 0.05
    assert min(gains) > -0.02


def test_a_pool_of_noise_is_not_learned_from() -> None:
    seen, labels = clouds((30,) * 3, 0)
    noise = 5 * torch.randn(600, WIDTH, generator=torch.Generator().manual_seed(3))
    first = choose(seen, labels, torch.ones(CLASSES))
    found = learn(seen, labels, torch.ones(CLASSES), noise, first)
    assert found.trust is None and found.loss >= found.plain_loss
    weight, bias = solve(seen, labels, torch.ones(CLASSES), first.penalty)
    assert torch.equal(found.weight, first.scale * weight) and torch.equal(found.bias, first.scale * bias)


def test_one_label_of_a_class_is_taken_at_its_word_and_says_so() -> None:
    seen, labels = clouds((1, 3, 3), 0)
    found = learn(seen, labels, torch.ones(CLASSES), clouds((50,) * 3, 5)[0], Choice(30.0, 1.0))
    assert found.trust == TRUSTS[0] and found.loss != found.loss
    assert torch.isfinite(found.weight).all()


def test_the_same_data_give_the_same_layer() -> None:
    (seen, labels), pool = clouds((5,) * 3, 0), clouds((40,) * 3, 5)[0]
    first, second = (learn(seen, labels, torch.ones(CLASSES), pool, Choice(30.0, 1.0)) for _ in range(2))
    assert torch.equal(first.weight, second.weight) and first.trust == second.trust


def test_aligned_probabilities_have_the_shares_that_were_asked_for() -> None:
    found = torch.rand(500, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    made = aligned(found / found.sum(1, keepdim=True), share)
    assert torch.allclose(made.sum(1), torch.ones(500, dtype=torch.float64))
    assert torch.allclose(made.mean(0), share, atol=1e-6)


def test_the_surest_of_each_class_are_taken_and_at_least_one() -> None:
    sure = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3], [0.45, 0.55]])
    assert surest(sure, 0.5).tolist() == [0, 2, 4]
    assert sorted(surest(sure, 1.0).tolist()) == [0, 1, 2, 3, 4]


def test_weighted_samples_are_repeated_ones() -> None:
    rows, labels = clouds((6,) * 3, 0)
    twice = torch.cat([rows, rows[:5]]), torch.cat([labels, labels[:5]])
    zeros = torch.zeros(CLASSES, WIDTH), torch.zeros(CLASSES)
    each = torch.ones(18)
    each[:5] = 2
    found, expected = solve_from(zeros, rows, labels, each, 3.0, 500), solve(*twice, torch.ones(CLASSES), 3.0)
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("mode", ["full", "knn"])
def test_it_is_of_a_solved_layer_alone(mode: str) -> None:
    with pytest.raises(ValidationError, match="self_training is of the mode linear_probe"):
        Classification.model_validate({"mode": mode, "self_training": True})
