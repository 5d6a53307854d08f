"""Cross-entropy over many classes, in fewer passes over the logits than PyTorch's. Needs torch.

With tens of thousands of entries a pass over the logits costs as much as a layer. The forward pass keeps what softmax
needs (one matrix, float32), and the backward pass turns it into the gradient where it stands. N places, V classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """(N,) losses, and (N,) 1 where the target scores highest (no gradient), both in float32 or better.

    The gradient can be taken once.

    Args:
        logits: (N, V), of any floating type.
        targets: (N,) int64.
        smoothing: share of each label that all classes have in common (Szegedy et al. 2015, arXiv 1512.00567).
    """
    losses, hits = _CrossEntropy.apply(logits, targets, smoothing)  # type: ignore[no-untyped-call]
    return losses, hits


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(logits.dtype, torch.float32)
        # `max` finds the place twice as fast as `argmax` on a CPU.
        top, place = logits.max(1)
        top = top.to(exact)
        told = logits.gather(1, targets[:, None])[:, 0].to(exact)
        powers = logits - top[:, None] if logits.dtype == exact else logits.to(exact).sub_(top[:, None])
        common = top + powers.mean(1) if smoothing else top
        sums = powers.exp_().sum(1)
        losses = sums.log() + top - (1 - smoothing) * told - smoothing * common
        ctx.save_for_backward(powers, sums, targets)
        ctx.dtype, ctx.smoothing = logits.dtype, smoothing
        hits = (place == targets).to(losses.dtype)
        ctx.mark_non_differentiable(hits)
        return losses, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        powers, sums, targets = ctx.saved_tensors
        of_logits = powers.mul_((gradient / sums)[:, None])
        if ctx.smoothing:
            of_logits.sub_((ctx.smoothing / powers.shape[1] * gradient)[:, None])
        of_logits.scatter_add_(1, targets[:, None], (ctx.smoothing - 1) * gradient[:, None])
        return of_logits.to(ctx.dtype), None, None
