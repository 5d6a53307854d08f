"""Convolutions that are right in bf16 on every CPU. Needs torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, in float32 where a CPU's bf16 kernel reads memory that is not its own.

    oneDNN's kernel for Intel's matrix tiles (AMX) computes a padded convolution with a stride wrongly where the output
    is one position wide: NaN, or numbers of any size, in the output and in the gradient of the weights (torch 2.13,
    seen with kernels of 3, 5 and 7 and strides of 2, 3 and 4). Such maps are so small that float32 costs nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h', w') from (B, C, h, w)."""
        if not x.is_cpu or self.stride[1] == 1 or self._width(x.shape[-1]) > 1:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))

    def _width(self, width: int) -> int:
        """Of the output."""
        padding = self.padding[1] if isinstance(self.padding, tuple) else 0
        return int((width + 2 * padding - self.kernel_size[1]) // self.stride[1] + 1)
