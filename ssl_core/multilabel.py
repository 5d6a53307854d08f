"""Independent logistic regressions, one for each class: their loss, and their solution. Needs torch.

N samples, D features, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.logistic import MANY, PENALTIES, USUAL_PENALTY

_FOLDS = 5


def positive_weights(truth: Tensor) -> Tensor:
    """(C,) samples outside each class over those inside, of (N, C) bool; 1 for a class with all or none of them."""
    inside = truth.sum(0).float()
    outside = len(truth) - inside
    return torch.where((inside > 0) & (outside > 0), outside / inside.clamp(min=1), 1.0)


def each_class_loss(logits: Tensor, truth: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean binary cross-entropy over samples and classes.

    Args:
        logits: (N, C).
        truth: (N, C) bool.
        weights: (C,) what a sample inside its class counts; one outside counts 1.
        smoothing: share of the target spread evenly over yes and no.
    """
    wanted = truth.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights.to(logits.dtype))


def solve(
    features: Tensor, truth: Tensor, weights: Tensor, penalty: float, iterations: int = 500
) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,); of each class the least weighted cross-entropy sum + penalty / 2 x |weight|^2.

    L-BFGS in float64 from zero, all classes at once. The bias is not penalised. A class with all or none of the samples
    has no least bias: it stops where the gradient is flat.

    Args:
        features: (N, D).
        truth: (N, C) bool.
        weights: (C,), as for `each_class_loss`.
        penalty: positive; scikit-learn's 1 / C.
        iterations: of L-BFGS, at most.
    """
    x, y, positive = features.detach().double(), truth.double(), weights.double()
    weight = torch.zeros(truth.shape[1], x.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    bias = torch.zeros(truth.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        logits = F.linear(x, weight, bias)
        fit = F.binary_cross_entropy_with_logits(logits, y, pos_weight=positive, reduction="sum")
        loss: Tensor = (fit + penalty / 2 * weight.square().sum()) / len(x)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach().to(features.dtype), bias.detach().to(features.dtype)


def choose(features: Tensor, truth: Tensor, weights: Tensor) -> float:
    """The penalty of `PENALTIES` with the least weighted log-loss held out in five-fold cross-validation, one for all
    classes; `USUAL_PENALTY` of fewer than ten samples, or of more than `MANY`. Arguments as for `solve`."""
    if not 2 * _FOLDS <= len(truth) <= MANY:
        return USUAL_PENALTY
    fold = torch.arange(len(truth), device=features.device) % _FOLDS

    def error(penalty: float) -> float:
        total = 0.0
        for held in range(_FOLDS):
            inside = fold != held
            # Fewer samples are fitted than in the end, so the penalty shrinks with them.
            share = float(inside.double().mean())
            weight, bias = solve(features[inside], truth[inside], weights, penalty * share, iterations=60)
            logits = F.linear(features[~inside], weight, bias)
            total += float(each_class_loss(logits, truth[~inside], weights)) * int((~inside).sum())
        return total

    return min(PENALTIES, key=error)
