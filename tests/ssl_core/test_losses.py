"""Losses against their formulas, written out in loops in float64, gradients included."""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_core import losses
from ssl_core.losses import info_nce, nt_xent, vocabulary_loss

COUNT, WIDTH = 6, 5


def pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, COUNT, WIDTH, dtype=torch.float64, generator=generator)
    return first.requires_grad_(), second.requires_grad_()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def nt_xent_in_loops(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equation 1 of the paper, term by term."""
    z = [row for pair in zip(first, second, strict=True) for row in pair]
    terms = []
    for i in range(len(z)):
        partner = i + 1 if i % 2 == 0 else i - 1
        below = sum(torch.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z)) if k != i)
        terms.append(-torch.log(torch.exp(cosine(z[i], z[partner]) / temperature) / below))
    return torch.stack(terms).mean()


def info_nce_in_loops(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    terms = []
    for one, other in ((first, second), (second, first)):
        for i in range(len(one)):
            below = sum(torch.exp(cosine(one[i], row) / temperature) for row in other)
            terms.append(-torch.log(torch.exp(cosine(one[i], other[i]) / temperature) / below))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize(("ours", "formula"), [(nt_xent, nt_xent_in_loops), (info_nce, info_nce_in_loops)])
def test_a_contrastive_loss_is_its_formula_with_its_gradient(ours: Any, formula: Any, temperature: float) -> None:
    first, second = pairs()
    loss, _ = ours(first, second, temperature)
    expected = formula(first, second, temperature)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for found, wanted in zip(
        torch.autograd.grad(loss, (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("ours", [nt_xent, info_nce])
def test_partners_that_are_equal_are_all_found(ours: Any) -> None:
    vectors = torch.eye(4)
    loss, found = ours(vectors, vectors, 0.01)
    assert found == 1
    assert loss < 1e-6


@pytest.mark.parametrize(("ours", "others"), [(nt_xent, 2 * COUNT - 1), (info_nce, COUNT)])
def test_vectors_that_are_all_equal_lose_the_logarithm_of_the_candidates(ours: Any, others: int) -> None:
    same = torch.ones(COUNT, WIDTH, dtype=torch.float64)
    assert float(ours(same, same, 0.5)[0]) == pytest.approx(math.log(others))


@pytest.mark.parametrize("ours", [nt_xent, info_nce])
def test_the_length_of_a_vector_does_not_matter(ours: Any) -> None:
    first, second = (side.detach() for side in pairs())
    assert torch.allclose(ours(first, second, 0.1)[0], ours(7 * first, 0.01 * second, 0.1)[0])


@pytest.fixture
def lightly_loss(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The reference library's loss; it imports torchvision, which this project must not have, so a blank stands in."""
    pytest.importorskip("lightly_utils")
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    try:
        return importlib.import_module("lightly.loss.ntx_ent_loss").NTXentLoss
    except (ImportError, AttributeError) as error:
        pytest.skip(f"the reference library cannot be imported: {error}")


def test_nt_xent_equals_the_reference_library(lightly_loss: Any) -> None:
    first, second = pairs()
    expected = lightly_loss(temperature=0.3)(first, second)
    assert float(nt_xent(first, second, 0.3)[0].detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


def vocabulary() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(23, 8, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(50, 8, dtype=torch.float64, generator=generator).requires_grad_()
    bias = torch.randn(50, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.randint(0, 50, (23,), generator=generator)
    weights = (torch.rand(23, generator=generator) < 0.7).double()
    return hidden, weight, bias, targets, weights


@pytest.mark.parametrize("chunk", [2**26, 500, 50])
def test_the_vocabulary_loss_is_the_mean_over_places_that_count(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_VALUES", chunk)
    hidden, weight, bias, targets, weights = vocabulary()
    loss, right = vocabulary_loss(hidden, weight, bias, targets, weights)
    logits = hidden @ weight.T + bias
    chosen = weights > 0
    expected = -(logits[chosen].log_softmax(1)[torch.arange(int(chosen.sum())), targets[chosen]]).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert float(right) == pytest.approx(float((logits[chosen].argmax(1) == targets[chosen]).double().mean()))
    inputs = (hidden, weight, bias)
    for found, wanted in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-14)


def test_the_vocabulary_loss_under_autocast_is_summed_in_float32() -> None:
    hidden, weight, bias, targets, weights = (tensor.detach().float() for tensor in vocabulary())
    exact = vocabulary_loss(hidden, weight, bias, targets.long(), weights)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = vocabulary_loss(hidden.bfloat16(), weight, bias, targets.long(), weights)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=5e-3)


def test_no_place_that_counts_gives_a_zero_loss() -> None:
    hidden, weight, bias, targets, weights = vocabulary()
    loss, _ = vocabulary_loss(hidden, weight, bias, targets, 0 * weights)
    assert float(loss.detach()) == 0


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("ours", [nt_xent, info_nce])
def test_a_contrastive_loss_is_not_computed_in_bf16(ours: Any, half: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    first = 1 + torch.randn(32, 64, generator=generator)
    second = first + 1.5 * torch.randn(32, 64, generator=generator)
    dtype = torch.bfloat16 if half else torch.float32
    sides = [side.to(dtype).detach().clone().requires_grad_() for side in (first, second)]
    exact = [side.detach().double().requires_grad_() for side in sides]
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = ours(*sides, 0.05)
    expected, _ = ours(*exact, 0.05)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found, wanted = torch.autograd.grad(loss, sides)[0], torch.autograd.grad(expected, exact)[0]
    assert (found.double() - wanted).norm() < (4e-3 if half else 1e-5) * wanted.norm()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_class_loss_is_torchs_weighted_mean_with_its_gradient(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    labels, weights = torch.tensor([0, 2, -1, 1, 1, 0, -1]), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    ours = losses.class_loss(logits, labels, weights, smoothing)
    reference = torch.nn.functional.cross_entropy(
        logits, labels, weight=weights, ignore_index=-1, label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (ours, reference)))
    assert losses.class_loss(logits.detach(), torch.full((7,), -1), weights).item() == 0.0
