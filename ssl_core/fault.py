"""The test hook of docs/contracts.md §2: `GROUNDWORK_ENGINE_FAULT=crash@12` acts at step 12 of a first attempt."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import Tensor


class Fault:
    """Nothing, unless the environment names a kind and a step and the run starts from no checkpoint."""

    def __init__(self, first_attempt: bool) -> None:
        kind, _, step = os.environ.get("GROUNDWORK_ENGINE_FAULT", "").partition("@")
        self._kind = kind if first_attempt else ""
        self._step = int(step) if step.isdigit() else -1

    def act(self, step: int, loss: Tensor) -> Tensor:
        """The loss of step `step`, or what the fault makes of it."""
        if step != self._step or not self._kind:
            return loss
        if self._kind == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "oom":
            raise torch.OutOfMemoryError("out of memory, asked for by the test hook")
        while self._kind == "hang":
            time.sleep(1)
        return loss * float("nan")
