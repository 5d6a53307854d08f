"""Multinomial logistic regression, solved. Needs torch.

N samples, D features, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """(C,) N / (C x count), scikit-learn's `balanced`; 0 for a class without samples."""
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


def solve(features: Tensor, labels: Tensor, weights: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,) with the least weighted cross-entropy sum + penalty / 2 x |weight|^2.

    L-BFGS in float64 from zero, so the same data give the same solution. The bias is not penalised.

    Args:
        features: (N, D).
        labels: (N,) int64.
        weights: (C,) of each class.
        penalty: positive; scikit-learn's 1 / C.
    """
    x = features.detach().double()
    each = weights.double()[labels]
    weight = torch.zeros(len(weights), x.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    bias = torch.zeros(len(weights), dtype=torch.float64, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
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
