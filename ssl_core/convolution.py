"""Convolutions of small maps on a CPU: faster, and right in bf16. Needs torch.

B pictures, C and O channels, h and w positions that go in, h' and w' that come out, k the kernel's side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_SMALL = 16
"""Positions of an output up to which the products are taken one by one."""
_CHANNELS = 64
"""Below so many the products are too small to be worth it."""


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with zeros around; on a CPU small maps are computed position by position.

    For each position of the output the part of the kernel that lies on the picture is one matrix product. oneDNN also
    computes what lies on the padding, which on a map of 2 x 2 is more than half, and is slow on such maps at that: its
    gradient of a 3 x 3 kernel of 512 channels there takes ten times as long (torch 2.13, AMX and AVX-512).

    In bf16 on Intel's matrix tiles (AMX) its convolutions with a stride and an output one position wide are wrong: NaN,
    or numbers of any size. Those that are not computed here are computed in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, O, h', w') from (B, C, h, w)."""
        plain = self.groups > 1 or self.dilation != (1, 1) or isinstance(self.padding, str)
        if plain or not x.is_cpu or torch.compiler.is_compiling():
            return super().forward(x)  # also where a graph is traced for a GPU or for ONNX
        high, wide = (self._size(size, axis) for axis, size in enumerate(x.shape[2:]))
        if 1 <= high * wide <= _SMALL and min(self.in_channels, self.out_channels) >= _CHANNELS:
            return self._by_position(x, (high, wide))
        if wide == 1 and self.stride[1] > 1:
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.to(self.weight.dtype))
        return super().forward(x)

    def _size(self, size: int, axis: int) -> int:
        """Of the output along an axis."""
        return (size + 2 * int(self.padding[axis]) - self.kernel_size[axis]) // self.stride[axis] + 1

    def _by_position(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        weight = self.weight.permute(0, 2, 3, 1)
        if torch.is_autocast_enabled("cpu"):
            low = torch.get_autocast_dtype("cpu")
            x, weight = x.to(low), weight.to(low)
        parts = list(self._parts(x.shape[2], x.shape[3], size))
        found: Tensor = _ByPosition.apply(x.permute(0, 2, 3, 1), weight, parts)  # type: ignore[no-untyped-call]
        made = found.view(len(x), *size, -1).permute(0, 3, 1, 2)
        return made if self.bias is None else made + self.bias.to(made.dtype)[:, None, None]

    def _parts(self, high: int, wide: int, size: tuple[int, int]) -> Iterator[tuple[Any, Any]]:
        """Of each position of the output, row by row: what it sees of the picture and of the kernel, as slices."""
        for row in range(size[0]):
            for column in range(size[1]):
                seen, taps = [], []
                for axis, (at, whole) in enumerate(((row, high), (column, wide))):
                    first = at * self.stride[axis] - int(self.padding[axis])
                    begin, end = max(0, first), min(whole, first + self.kernel_size[axis])
                    seen.append(slice(begin, end))
                    taps.append(slice(begin - first, end - first))
                yield tuple(seen), tuple(taps)


class _ByPosition(torch.autograd.Function):
    """(B, h' w', O) from (B, h, w, C) and (O, k, k, C): for each output position one product over what it sees."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, parts: list[tuple[Any, Any]]) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.parts = parts
        out = x.new_empty(len(x), len(parts), len(weight))
        for at, (seen, taps) in enumerate(parts):
            out[:, at] = _seen(x, seen) @ _taps(weight, taps).T
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        to_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        # Sums of several products: in float32, as one long product would be.
        exact = torch.promote_types(weight.dtype, torch.float32)
        to_weight = torch.zeros(weight.shape, dtype=exact) if ctx.needs_input_grad[1] else None
        for at, (seen, taps) in enumerate(ctx.parts):
            pull = gradient[:, at]
            if to_x is not None:
                to_x[:, *seen] += (pull @ _taps(weight, taps)).view(to_x[:, *seen].shape)
            if to_weight is not None:
                to_weight[:, *taps] += (pull.T @ _seen(x, seen)).view(to_weight[:, *taps].shape)
        return to_x, None if to_weight is None else to_weight.to(weight.dtype), None


def _seen(x: Tensor, seen: tuple[slice, slice]) -> Tensor:
    """(B, n C): what one position sees of n positions."""
    return x[:, *seen].reshape(len(x), -1)


def _taps(weight: Tensor, taps: tuple[slice, slice]) -> Tensor:
    """(O, n C): the same part of the kernel."""
    return weight[:, *taps].reshape(len(weight), -1)
