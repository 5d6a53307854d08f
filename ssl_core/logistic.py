"""Multinomial logistic regression, solved. Needs torch.

N samples, D features, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
USUAL_PENALTY = 30.0
MANY = 2000


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(C,) N / (C x count), scikit-learn's `balanced`; 0 for a class without samples."""
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


class Choice(NamedTuple):
    """A penalty, and what the logits of its solution are multiplied with to be calibrated."""

    penalty: float
    scale: float


def choose(features: Tensor, labels: Tensor, weights: Tensor) -> Choice:
    """The penalty of `PENALTIES` with the least weighted log-loss held out in stratified cross-validation, at most
    five-fold, once the held-out logits are calibrated by one scale.

    With few labels the best penalty for telling classes apart is large and makes the logits small; without the scale
    the log-loss would see only that. The scale is temperature scaling (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599) on held-out logits.

    `USUAL_PENALTY` and a scale of 1 where a class has one sample only, or where there are more than `MANY` and it
    hardly matters.

    Args:
        features, labels, weights: as for `solve`.
    """
    folds = folds_of(labels, weights, 5)
    if folds < 2 or len(labels) > MANY:
        return Choice(USUAL_PENALTY, 1.0)
    logits = [_held_out(features, labels, weights, penalty, folds) for penalty in PENALTIES]
    found = [calibrated(each, labels, weights) for each in logits]
    at = min(range(len(PENALTIES)), key=lambda index: found[index].loss)
    return Choice(PENALTIES[at], found[at].scale)


def folds_of(labels: Tensor, weights: Tensor, most: int) -> int:
    """Of cross-validation: at most `most`, and as many as the rarest class that occurs has samples."""
    counts = torch.bincount(labels, minlength=len(weights))
    return min(most, int(counts[counts > 0].min()))


def places(labels: Tensor, classes: int) -> Tensor:
    """(N,) the place of each sample among those of its class, which decides its fold: no draw, so the same data choose
    the same."""
    return (F.one_hot(labels, classes).cumsum(0) - 1).gather(1, labels[:, None])[:, 0]


def _held_out(features: Tensor, labels: Tensor, weights: Tensor, penalty: float, folds: int) -> Tensor:
    """(N, C) logits of each sample by a solution that has not seen it."""
    place = places(labels, len(weights))
    logits = torch.zeros(len(labels), len(weights), dtype=torch.float64, device=features.device)
    for fold in range(folds):
        held = place % folds == fold
        # Fewer samples are fitted than in the end, so the penalty shrinks with them.
        share = float((~held).double().mean())
        weight, bias = solve(features[~held], labels[~held], weights, penalty * share, iterations=60)
        logits[held] = F.linear(features[held], weight, bias).double()
    return logits


class Calibrated(NamedTuple):
    """The least weighted log-loss, summed, that one scale of the logits gives, and that scale."""

    loss: float
    scale: float


def calibrated(logits: Tensor, labels: Tensor, weights: Tensor) -> Calibrated:
    """Of (N, C) held-out logits, the best of scales from 0.01 to 100."""
    scales = torch.logspace(-2, 2, 81, dtype=torch.float64).tolist()
    losses = [
        float(F.cross_entropy(scale * logits, labels, weights.double(), reduction="sum")) for scale in scales
    ]
    best = min(range(len(scales)), key=losses.__getitem__)
    return Calibrated(losses[best], scales[best])


def solve(
    features: Tensor, labels: Tensor, weights: Tensor, penalty: float, iterations: int = 500
) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,) with the least weighted cross-entropy sum + penalty / 2 x |weight|^2.

    L-BFGS in float64 from zero, so the same data give the same solution. The bias is not penalised.

    Args:
        features: (N, D).
        labels: (N,) int64.
        weights: (C,) of each class.
        penalty: positive; scikit-learn's 1 / C.
        iterations: of L-BFGS, at most.
    """
    zeros = features.new_zeros(len(weights), features.shape[1]), features.new_zeros(len(weights))
    return solve_from(zeros, features, labels, weights[labels], penalty, iterations)


def solve_from(
    start: tuple[Tensor, Tensor], features: Tensor, labels: Tensor, each: Tensor, penalty: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """The same with (N,) weights of the samples, beginning with a weight and a bias. Arguments as for `solve`."""
    x, each = features.detach().double(), each.double()
    weight, bias = (part.detach().double().clone().requires_grad_() for part in start)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        fit = (F.cross_entropy(F.linear(x, weight, bias), labels, reduction="none") * each).sum()
        loss: Tensor = (fit + penalty / 2 * weight.square().sum()) / len(x)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach().to(features.dtype), bias.detach().to(features.dtype)
