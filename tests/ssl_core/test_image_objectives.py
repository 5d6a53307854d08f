"""BYOL, VICReg and DINO against the papers' formulas, term by term in float64, loss and gradient."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.losses import entropy, multi_crop_loss, vicreg_terms
from ssl_core.nets import Nets
from ssl_core.prototypes import Centre, PrototypeHead, centre_of, head_of
from ssl_core.teacher import teacher_of
from tests.ssl_core.test_objectives import image_encoder, objective

SEEDS = torch.arange(6)
SMALL = {"prototypes": 16, "head_hidden": 24, "head_bottleneck": 8}


def pictures(seed: int, side: int = 8) -> Tensor:
    return torch.randn(6, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def crops() -> tuple[Tensor, ...]:
    return (pictures(0), pictures(1), *(pictures(seed, 4) for seed in range(2, 8)))


def built(name: str, **fields: Any) -> tuple[Any, Nets]:
    """In float64, with a teacher that differs from its student, and batch normalisation that measures nothing."""
    one = objective(name, **fields)
    nets = one.build(image_encoder()).double().eval()
    torch.manual_seed(1)
    for parameter in nets.parameters():
        if not parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return one, nets


def gradients(loss: Tensor, nets: Nets) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in nets.named_parameters() if parameter.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def assert_same(found: Tensor, expected: Tensor, nets: Nets) -> None:
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-7)
    ours, theirs = gradients(found, nets), gradients(expected, nets)
    scale = max(float(value.abs().max()) for value in theirs.values())
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-7 * scale, msg=name)


def unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum().sqrt()


def test_byol_is_the_squared_distance_of_unit_vectors_in_both_orders() -> None:
    byol, nets = built("byol", projector_hidden=24, projector_dim=8)
    views = (pictures(0), pictures(1))
    teacher, expected = teacher_of(nets).copies, torch.zeros((), dtype=torch.float64)
    for one, other in (views, views[::-1]):
        predicted = nets.parts["predictor"](nets.parts["projector"](nets.encoder(one)))
        targets = teacher["projector"](teacher["encoder"](other)).detach()
        distances = [(unit(p) - unit(t)).square().sum() for p, t in zip(predicted, targets, strict=True)]
        expected = expected + torch.stack(distances).mean()
    assert_same(byol.loss(nets, Batch(views, SEEDS))["loss"], expected, nets)


def test_byol_without_a_predictor_has_none_to_learn() -> None:
    _, nets = built("byol", predictor_layers=0)
    assert not list(nets.parts["predictor"].parameters())


def vicreg_in_loops(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Equations 1 to 5 with the divisors of the authors' code."""
    count, width = first.shape
    invariance = sum((a - b).square().sum() for a, b in zip(first, second, strict=True)) / (count * width)
    hinges, covariances = [], []
    for side in (first, second):
        means = [side[:, i].sum() / count for i in range(width)]
        for i in range(width):
            variance = sum((row[i] - means[i]) ** 2 for row in side) / (count - 1)
            hinges.append(torch.clamp(1 - torch.sqrt(variance + 1e-4), min=0))
            for j in range(width):
                if i != j:
                    product = sum((row[i] - means[i]) * (row[j] - means[j]) for row in side) / (count - 1)
                    covariances.append(product**2 / width)
    return invariance, torch.stack(hinges).mean(), torch.stack(covariances).sum()


@pytest.mark.parametrize("shape", [(6, 4), (4, 7)])
def test_the_terms_of_vicreg_are_their_formulas_with_their_gradients(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (0.7 * torch.randn(2, *shape, dtype=torch.float64, generator=generator)).requires_grad_()
    for found, expected in zip(vicreg_terms(first, second), vicreg_in_loops(first, second), strict=True):
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
        pairs = (torch.autograd.grad(term, (first, second), retain_graph=True) for term in (found, expected))
        for ours, theirs in zip(*pairs, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_vicreg_is_the_weighted_sum_of_its_terms() -> None:
    vicreg, nets = built("vicreg", expander_dim=16, invariance_weight=3.0, variance_weight=5.0, covariance_weight=0.5)
    first, second = pictures(0), pictures(1)
    projected = nets.parts["expander"](nets.encoder(torch.cat([first, second])))
    terms = vicreg_in_loops(*projected.chunk(2))
    values = vicreg.loss(nets, Batch((first, second), SEEDS))
    assert_same(values["loss"], 3.0 * terms[0] + 5.0 * terms[1] + 0.5 * terms[2], nets)
    assert [float(values[name]) for name in ("invariance", "variance", "covariance")] == pytest.approx(
        [float(term.detach()) for term in terms]
    )


def test_vicreg_of_equal_vectors_loses_its_whole_variance() -> None:
    _, variance, covariance = vicreg_terms(torch.ones(8, 4), torch.ones(8, 4))
    assert float(variance) == pytest.approx(0.99)
    assert float(covariance) == 0.0


def cross_entropy_in_loops(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Equation 3: every target with every crop but its own."""
    terms = [
        -(targets[g, n] * torch.log_softmax(student[v, n] / temperature, 0)).sum()
        for g in range(len(targets))
        for v in range(len(student))
        for n in range(student.shape[1])
        if v != g
    ]
    return torch.stack(terms).mean()


def test_dino_is_the_cross_entropy_of_all_pairs_of_different_crops() -> None:
    dino, nets = built("dino", **SMALL, teacher_warmup=0.5)
    teacher, centre = teacher_of(nets), centre_of(nets)
    centre.mean.normal_(std=0.1)
    teacher.progress.fill_(0.25)  # half of the warm-up: between 0.04 and 0.07
    views, head = crops(), head_of(nets)
    head.open.fill_(1.0)
    student = torch.stack([head(nets.encoder(view)) for view in views])
    outputs = torch.stack([teacher.copies["head"](teacher.copies["encoder"](view)) for view in views[:2]])
    targets = torch.softmax((outputs - centre.mean) / 0.055, -1).detach()
    values = dino.loss(nets, Batch(views, SEEDS))
    expected = cross_entropy_in_loops(student, targets, 0.1)
    assert float(values["teacher_temperature"]) == pytest.approx(0.055)
    assert_same(values["loss"], expected, nets)


def test_no_crop_of_the_student_meets_the_same_crop_of_the_teacher() -> None:
    student = torch.zeros(3, 1, 4)
    student[0, 0, 0] = student[1, 0, 1] = 50.0
    targets = torch.eye(4)[:2, None]
    # Each global crop agrees with itself, which must not count: the other pairs are as wrong as they can be.
    assert float(multi_crop_loss(student, targets, 1.0)) > 20
    assert float(multi_crop_loss(student[[1, 0]], targets, 1.0)) == pytest.approx(0.0, abs=1e-6)


def test_the_prototypes_rest_at_first_and_then_learn() -> None:
    dino, nets = built("dino", **SMALL, freeze=0.1)
    for progress, learns in ((0.05, False), (0.1, True)):
        dino.after_step(nets, progress)
        nets.zero_grad()
        dino.loss(nets, Batch(crops(), SEEDS))["loss"].backward()
        grad = head_of(nets).prototypes.grad
        assert grad is not None and bool(grad.any()) is learns
        assert all(bool(parameter.grad.any()) for parameter in nets.encoder.parameters() if parameter.grad is not None)


def test_prototypes_are_compared_by_their_direction_alone() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(5, 8, 4, 6)
    x, before = torch.randn(3, 5), None
    for scale in (1.0, 7.0):
        head.prototypes.data.mul_(scale)
        found = head(x)
        assert before is None or torch.allclose(found, before, atol=1e-6)
        before = found.detach()
    assert float(before.abs().max()) <= 1  # type: ignore[union-attr]


def test_the_centre_moves_after_it_was_used_and_in_training_only() -> None:
    centre, outputs = Centre(3, momentum=0.9), torch.tensor([[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]])
    assigned = centre.assign(outputs, 0.5)
    torch.testing.assert_close(assigned, torch.softmax(outputs / 0.5, -1))
    torch.testing.assert_close(centre.mean, torch.tensor([[0.2, 0.2, 0.2]]))
    centre.eval().assign(outputs, 0.5)
    torch.testing.assert_close(centre.mean, torch.tensor([[0.2, 0.2, 0.2]]))


def test_the_centre_takes_off_what_all_outputs_share() -> None:
    torch.manual_seed(0)
    centre, shared = Centre(8, momentum=0.5), torch.tensor([5.0] + [0.0] * 7)
    outputs = shared + 0.01 * torch.randn(1, 32, 8)
    first = centre.assign(outputs, 0.05)
    for _ in range(30):
        last = centre.assign(outputs, 0.05)
    assert float(entropy(first).mean()) < 1e-3
    assert float(entropy(last).mean()) > 0.9 * math.log(8)


@pytest.mark.parametrize("name", ["byol", "dino"])
def test_after_a_step_the_teacher_is_the_average_of_all_it_copies(name: str) -> None:
    one, nets = built(name, momentum=0.9, **(SMALL if name == "dino" else {"projector_hidden": 16}))
    before = copy.deepcopy(teacher_of(nets).copies)
    one.after_step(nets, 0.0)
    students = {"encoder": nets.encoder, **{part: nets.parts[part] for part in before if part != "encoder"}}
    for part, student in students.items():
        after = teacher_of(nets).copies[part].parameters()
        for found, old, new in zip(after, before[part].parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(found, 0.9 * old + 0.1 * new)


@pytest.mark.parametrize("name", ["byol", "vicreg", "dino"])
def test_in_bf16_the_loss_is_nearly_that_of_fp32(name: str) -> None:
    one, nets = built(name, **(SMALL if name == "dino" else {}))
    nets.float()
    batch = Batch(tuple(view.float() for view in (crops() if name == "dino" else crops()[:2])), SEEDS)
    exact = float(one.loss(nets, batch)["loss"].detach())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = one.loss(nets, batch)["loss"]
    assert rounded.dtype == torch.float32
    assert float(rounded.detach()) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("byol", "momentum", 1.5), ("byol", "projector_layers", 0), ("vicreg", "expander_dim", 4),
        ("vicreg", "covariance_weight", -1.0), ("dino", "prototypes", 2), ("dino", "student_temperature", 0.0),
        ("dino", "freeze", 2.0),
    ],
)  # fmt: skip
def test_a_hyperparameter_out_of_bounds_is_refused_by_name(name: str, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        objective(name, **{field: value})
