"""The only module that knows ranks. Outside torchrun everything here is the identity."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes events, checkpoints and the result."""
    return rank() == 0


def device() -> torch.device:
    """This process's device: its own GPU where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group that torchrun's environment names (NCCL on GPUs, gloo on CPUs); nothing without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        # What DDP leaves in cycles holds the group's threads; freed after the group, or never, it aborts the process.
        gc.collect()
        dist.destroy_process_group()


def wrap(step: nn.Module) -> nn.Module:
    """DDP around a whole `TrainStep`: a loss computed past the wrapper would silently skip the gradient sync.

    `find_unused_parameters` stays off: an objective that leaves a parameter out has a bug, and DDP says so.
    """
    if world_size() == 1:
        return step
    step = synchronised(step)
    return DistributedDataParallel(step, device_ids=[device().index] if torch.cuda.is_available() else None)


def synchronised(module: nn.Module) -> nn.Module:
    """Batch normalisation over the samples of all processes, so that more of them train as one would.

    torch's own does that on GPUs only; on a CPU the classes below stand in, under the same parameter names.
    """
    if torch.cuda.is_available():
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.__class__ = _SharedBatchNorm
    return module


class _SharedBatchNorm(_BatchNorm):
    """Ioffe and Szegedy 2015 with the mean and variance of all processes, which must see equally many samples."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions from two on: (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """Shape as given."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        exact = torch.promote_types(input.dtype, torch.float32)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        x = input.to(exact)
        shape = [1, -1] + [1] * (input.ndim - 2)
        # Two passes: the mean of squares less the squared mean would lose what is left of small variances.
        first = _mean_of_all(x.mean(axes))
        centred = x - first.view(shape)
        variance = _mean_of_all(centred.square().mean(axes))
        self._remember(first.detach(), variance.detach(), input.numel() // input.shape[1] * world_size())
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = normal.to(input.dtype)
        return result

    def _remember(self, first: Tensor, variance: Tensor, count: int) -> None:
        """Running averages as torch keeps them: of the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(first.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * count / max(1, count - 1)).to(self.running_var.dtype), share)


class _Summed(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _mean_of_all(value: Tensor) -> Tensor:
    return cast("Tensor", _Summed.apply(value)) / world_size()  # type: ignore[no-untyped-call]


class _Gathered(torch.autograd.Function):
    """Rows of all processes; a row's gradient is the sum of what all processes say of it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        mine: Tensor = total.chunk(world_size())[rank()]
        return mine


_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within it each process computes for itself: scores are of the same samples in every process."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def gathered(rows: Tensor) -> Tensor:
    """(W N, ...) the rows (N, ...) of all W processes, in the order of their ranks, with gradients to each.

    A loss of gathered rows is the same in every process, and its gradient after DDP's mean is that of one process with
    the whole batch: what each adds up to W times, the mean divides by W.
    """
    if world_size() == 1 or _alone:
        return rows
    return cast("Tensor", _Gathered.apply(rows))  # type: ignore[no-untyped-call]


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes."""
    if world_size() == 1 or _alone:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def collected(value: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """What every process gives, by rank; all must call it."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def agree(flag: int) -> int:
    """The largest flag of all processes, so that they stop at the same step."""
    if world_size() == 1:
        return flag
    shared = torch.tensor(flag, device=device())
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared.item())


def barrier() -> None:
    """Wait for the others."""
    if dist.is_initialized():
        dist.barrier()
