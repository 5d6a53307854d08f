"""How fast a run is and what share of the machine it uses, so that slowness is seen by the user too.

Series that depend on the clock or the machine are named `time/…` or `throughput/…`; every other series is a function
of data, spec and seed, and comes out the same in a resumed run.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# Dense bf16 peak of the data sheets, FLOP/s. A device not listed is measured by a large matrix product instead.
_DATA_SHEET = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "T4": 65e12}


def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP/s this device can reach at most, the 100 % of `throughput/mfu`."""
    if device.type == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name(device)
        for known, value in _DATA_SHEET.items():
            if known in name:
                return value
    size, dtype = (4096, torch.float32) if device.type == "cuda" else (768, torch.float32)
    dtype = torch.bfloat16 if device.type == "cuda" and precision == "bf16" else dtype
    left = torch.ones(size, size, dtype=dtype, device=device)
    best = min(_seconds(left) for _ in range(4))
    return 2.0 * size**3 / best


def _seconds(left: torch.Tensor) -> float:
    synchronize(left.device)
    started = time.perf_counter()
    left @ left
    synchronize(left.device)
    return max(1e-9, time.perf_counter() - started)


def synchronize(device: torch.device) -> None:
    """Wait for the device's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_flops(forward: Callable[[], Any]) -> float:
    """FLOPs of one training step: forward counted from the matrix products that run, backward taken as twice that.

    The generators are left as they were, so counting does not change the run.
    """
    with torch.random.fork_rng(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return 3.0 * float(counter.get_total_flops())


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device where it is a GPU, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Meter:
    """Rates since the last reading; evaluations and checkpoints are not counted in."""

    def __init__(self, device: torch.device, tokens_per_example: float) -> None:
        self._device, self._tokens = device, tokens_per_example
        self.flops, self.peak = 0.0, 0.0
        self._steps, self._examples, self._seconds, self._waited = 0, 0, 0.0, 0.0
        self.examples_per_second: float | None = None
        self.seconds_per_step: float | None = None

    def count(self, examples: int, seconds: float, waited: float) -> None:
        """One step of `examples` samples took `seconds`, of which it stood `waited` without data."""
        self._steps += 1
        self._examples += examples
        self._seconds += seconds
        self._waited += waited

    def read(self) -> dict[str, float]:
        """The series since the last call."""
        if not self._steps or self._seconds <= 0:
            return {}
        rate = self._examples / self._seconds
        self.examples_per_second, self.seconds_per_step = rate, self._seconds / self._steps
        values = {
            "throughput/examples_per_second": rate,
            "throughput/tokens_per_second": rate * self._tokens,
            "throughput/peak_memory_bytes": float(peak_memory(self._device)),
            "time/step_seconds": self.seconds_per_step,
            "time/data_wait_share": self._waited / self._seconds,
        }
        if self.flops and self.peak:
            values["throughput/mfu"] = self.flops * self._steps / self._seconds / self.peak
        self._steps, self._examples, self._seconds, self._waited = 0, 0, 0.0, 0.0
        return values
