"""Dropout that draws its mask quickly on a CPU. Needs torch.

Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html. PyTorch draws one number of its own for every
element, which on a CPU costs as much as a quarter of a small Transformer's step. Here one 64-bit draw decides four
elements, 16 bits each, and what is kept for the backward pass is a byte an element instead of a float.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STEPS = 2**16
"""A probability is rounded to a multiple of 1 / 65,536; the factor of what is kept is that of the rounded one."""


class Dropout(nn.Dropout):
    """As `torch.nn.Dropout`, drawn from the same generator."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        return drop(x, self.p) if self.training else x


def drop(x: Tensor, p: float) -> Tensor:
    """Each element 0 with probability `p`, else divided by 1 - p."""
    if p <= 0:
        return x
    if x.device.type != "cpu" or p >= 1 or torch.compiler.is_compiling():
        return F.dropout(x, p)
    dropped: Tensor = _Drop.apply(x, round(p * _STEPS))  # type: ignore[no-untyped-call]
    return dropped


def kept(shape: torch.Size, lost: int) -> Tensor:
    """uint8 of a shape: 0 with probability lost / 65,536, else 1. From PyTorch's own generator of the CPU."""
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= lost - _STEPS // 2).view(torch.uint8).view(shape)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lost: int) -> Tensor:
        mask = kept(x.shape, lost)
        ctx.save_for_backward(mask)
        ctx.factor = _STEPS / max(1, _STEPS - lost)
        return (x * mask).mul_(ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.factor), None
