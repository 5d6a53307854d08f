"""The only module that knows ranks. Outside torchrun everything here is the identity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
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
        dist.destroy_process_group()


def wrap(step: nn.Module) -> nn.Module:
    """DDP around a whole `TrainStep`: a loss computed past the wrapper would silently skip the gradient sync.

    `find_unused_parameters` stays off: an objective that leaves a parameter out has a bug, and DDP says so.
    """
    if world_size() == 1:
        return step
    return DistributedDataParallel(step, device_ids=[device().index] if torch.cuda.is_available() else None)


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


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
