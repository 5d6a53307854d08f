"""One training step as fused kernels (`torch.compile`). Needs torch.

A step whose loss the compiler cannot take runs as it is written, and says so: a compiler that is missing or does not
know an operator is no reason to lose a job.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from ssl_core import distributed
from ssl_core.batch import Batch
from ssl_core.learner import TrainStep


def compile_loss(step: TrainStep, batch: Batch, precision: AbstractContextManager[object]) -> str | None:
    """Put a compiled loss into `step`, once it has served one batch forwards and backwards.

    Weights, buffers, gradients and generators are left as they were. Every process of a run does the same: where one
    cannot compile, none does.

    Returns: None, or the compiler's own first line where the loss stays as it was.

    Raises:
        torch.OutOfMemoryError: the step needs more memory than there is, compiled or not.
    """
    kept = {name: buffer.clone() for name, buffer in step.nets.named_buffers()}
    step.compiled = torch.compile(step.learner.loss)
    refused: str | None = None
    try:
        with torch.random.fork_rng(), distributed.alone():
            with precision:
                loss = step(batch)["loss"]
            loss.backward()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever the compiler, its code generators and their tools raise
        refused = next(iter(str(error).strip().splitlines()), type(error).__name__)
    finally:
        for name, buffer in step.nets.named_buffers():
            buffer.data.copy_(kept[name])
        step.nets.zero_grad(set_to_none=True)
    if distributed.agree(int(refused is not None)):
        step.compiled = None
        return refused or "another process of this run could not"
    return None
