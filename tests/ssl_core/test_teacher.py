"""The slow teacher: exact averages, no gradient, its own batch normalisation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ssl_core.nets import Nets
from ssl_core.teacher import Teacher, cosine_momentum, evenness, teacher_of
from tests.ssl_core.test_objectives import image_encoder


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))


def test_it_is_the_exponential_average_of_every_student_it_followed() -> None:
    one = student()
    teacher = Teacher(one=one)
    expected = [parameter.detach().double().clone() for parameter in one.parameters()]
    for step in range(20):
        momentum = 0.5 + 0.02 * step
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(torch.randn_like(parameter))
        expected = [
            momentum * old + (1 - momentum) * new.detach().double()
            for old, new in zip(expected, one.parameters(), strict=True)
        ]
        teacher.follow({"one": one}, momentum, step / 20)
    for found, wanted in zip(teacher.copies["one"].parameters(), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    assert float(teacher.momentum) == pytest.approx(0.88)
    assert float(teacher.progress) == pytest.approx(0.95)


@pytest.mark.parametrize(("momentum", "follows"), [(0.0, True), (1.0, False)])
def test_the_ends_of_the_momentum_copy_and_stay(momentum: float, follows: bool) -> None:
    one = student()
    teacher = Teacher(one=one)
    before = [parameter.clone() for parameter in teacher.copies["one"].parameters()]
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1.0)
    teacher.follow({"one": one}, momentum, 0.0)
    wanted = list(one.parameters()) if follows else before
    assert all(torch.equal(a, b) for a, b in zip(teacher.copies["one"].parameters(), wanted, strict=True))


def test_it_shares_nothing_with_its_student_and_takes_no_gradient() -> None:
    one = student()
    teacher = Teacher(one=one)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    pairs = zip(teacher.copies["one"].parameters(), one.parameters(), strict=True)
    assert all(mine.data_ptr() != theirs.data_ptr() for mine, theirs in pairs)


def test_nothing_is_dropped_in_it_while_its_batch_normalisation_measures() -> None:
    one = student()
    teacher = Teacher(one=one).train()
    x = torch.randn(8, 4)
    first = teacher.copies["one"](x)
    assert torch.equal(first, teacher.copies["one"](x))
    norm = teacher.copies["one"].get_submodule("1")
    assert int(norm.get_buffer("num_batches_tracked")) == 2
    assert int(one.get_submodule("1").get_buffer("num_batches_tracked")) == 0
    teacher.eval()
    teacher.copies["one"](x)
    assert int(norm.get_buffer("num_batches_tracked")) == 2


def test_the_momentum_rises_to_one_along_half_a_cosine() -> None:
    found = [cosine_momentum(0.9, progress) for progress in (0.0, 0.25, 0.5, 1.0, 1.5)]
    quarter = 1 - 0.1 * (math.cos(math.pi / 4) + 1) / 2
    assert found == pytest.approx([0.9, quarter, 0.95, 1.0, 1.0])


def test_evenness_is_one_on_the_sphere_and_zero_in_a_point() -> None:
    vectors = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0))
    assert float(evenness(vectors)) == pytest.approx(1.0, abs=0.03)
    assert float(evenness(torch.ones(10, 32))) == pytest.approx(0.0, abs=1e-6)


def test_nets_without_a_teacher_are_named() -> None:
    with pytest.raises(TypeError, match="no Teacher"):
        teacher_of(Nets(image_encoder(), teacher=nn.Identity()))
