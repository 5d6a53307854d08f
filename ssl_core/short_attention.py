"""Attention over short rows for training on a CPU. Needs torch.

PyTorch's kernel for a CPU works through one head of one row at a time, so over the few dozen tokens of a masked picture
most of it is preparation. Three batched products keep the weights, which are small there, and take half of its time.

B rows, H heads, T queries, S keys, E channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LONGEST = 128
"""Keys up to which keeping (B, H, T, S) weights is worth it."""


def pays(q: Tensor, k: Tensor) -> bool:
    """Whether `attend_short` is the quicker way: a gradient is wanted, on a CPU, in full precision, of short rows."""
    wanted = torch.is_grad_enabled() and q.requires_grad and k.requires_grad
    exact = q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)
    # Rotary angles leave q and k in float32 beside a v in bf16.
    exact = exact and not torch.is_autocast_enabled("cpu")
    return wanted and exact and k.shape[2] <= LONGEST and not torch.compiler.is_compiling()


def attend_short(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, H, T, E) from queries (B, H, T, E), keys and values (B, H, S, E); each query sees every key."""
    seen: Tensor = _Short.apply(q, k, v)  # type: ignore[no-untyped-call]
    return seen


def _scaled(left: Tensor, right: Tensor, factor: float) -> Tensor:
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=factor)


class _Short(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.heads, ctx.factor = q.shape[:2], q.shape[3] ** -0.5
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        weights = _scaled(q, k.transpose(1, 2), ctx.factor).softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        return torch.bmm(weights, v).view(*ctx.heads, q.shape[1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        q, k, v, weights = ctx.saved_tensors
        gradient = gradient.flatten(0, 1)
        of_weights = torch.bmm(gradient, v.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        parts = (
            _scaled(of_scores, k, ctx.factor),
            _scaled(of_scores.transpose(1, 2), q, ctx.factor),
            torch.bmm(weights.transpose(1, 2), gradient),
        )
        return tuple(part.view(*ctx.heads, *part.shape[1:]) for part in parts)
