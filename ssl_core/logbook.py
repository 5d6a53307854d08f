"""What a run tells while it trains: means of logged values, speed, progress. Needs torch."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ssl_core import distributed
from ssl_core.checkpoint import TrainState
from ssl_core.context import RunContext
from ssl_core.throughput import Meter


class Logbook:
    """Sums on the device, so that nothing waits for it between two log lines; only the main process tells.

    Args:
        context: where events go.
        state: of the run; sums that a checkpoint kept are taken over, the latest values go into `metrics`.
        meter: of its speed.
        device: where the values are.
    """

    def __init__(self, context: RunContext, state: TrainState, meter: Meter, device: torch.device) -> None:
        self._context, self._state, self._meter = context, state, meter
        self._sums = {
            name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in state.sums.items()
        }
        self._told_at = 0.0

    def add(self, values: dict[str, Tensor]) -> None:
        """Count one step's values."""
        for name, value in values.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._state.counted += 1

    def freeze(self) -> None:
        """Put the running sums where a checkpoint finds them."""
        self._state.sums = {name: float(value.item()) for name, value in self._sums.items()}

    def log(self, extra: dict[str, float]) -> None:
        """Emit the means since the last call as `train/...`, with `extra` and the speed, and begin anew."""
        state = self._state
        values = {
            f"train/{name}": float(distributed.mean(value).item()) / state.counted
            for name, value in sorted(self._sums.items())
        } | extra
        state.metrics.update(values)
        self._sums, state.counted = {}, 0
        self.emit("metrics", step=state.step, values={**values, **self._meter.read()})

    def tell_progress(self) -> None:
        """Emit where the run stands, at most once a second."""
        now, state = time.monotonic(), self._state
        if now - self._told_at < 1.0 and state.step != state.total_steps:
            return
        self._told_at = now
        pace = state.elapsed / max(1, state.step)
        eta = pace * (state.total_steps - state.step) if state.total_steps else None
        rate = self._meter.examples_per_second
        total = state.total_steps or None  # unknown while a `minutes` budget still measures
        self.emit(
            "progress", stage="training", step=state.step, total_steps=total, examples_per_second=rate, eta_seconds=eta
        )

    def message(self, code: str, text: str, level: str = "info") -> None:
        """Emit a message at the present step."""
        self.emit("message", level=level, code=code, message=text, step=self._state.step)

    def message_once(self, code: str, text: str) -> None:
        """Emit a warning, unless this run, resumed or not, has sent its code before."""
        if code not in self._state.warned:
            self._state.warned.append(code)
            self.message(code, text, "warning")

    def emit(self, type: str, **fields: object) -> None:
        """Emit an event, on the main process only."""
        if distributed.is_main():
            self._context.emit(type, **fields)


class Running:
    """Means that are taken now and then, kept on the device between."""

    def __init__(self, device: torch.device, sums: dict[str, float], count: int = 0) -> None:
        self._sums = {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in sums.items()}
        self._count = count

    def add(self, values: dict[str, Tensor]) -> None:
        """Count one step."""
        for name, value in values.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means over all processes since the last call; empty where nothing was counted."""
        found = {name: float(distributed.mean(value).item()) / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return found

    def frozen(self) -> tuple[dict[str, float], int]:
        """Sums and count, for a checkpoint."""
        return {name: float(value.item()) for name, value in self._sums.items()}, self._count
