"""How many steps a budget buys. Needs torch only through the loader it reads."""

from __future__ import annotations

import math

from ssl_core.data.loader import Loader
from ssl_core.spec import TrainPlan

_SKIP = 2  # the first steps of a process pay for allocation and kernel choice
_EVALUATING = 0.15  # of a `minutes` budget, at most
_CHANGED = 0.2  # of the steps left: a change of pace that refits a schedule
LAPS = 20  # looks at the pace in a run
RESERVE = 0.94  # of a `minutes` budget; the rest is for checkpoints and export


def budget_steps(plan: TrainPlan, loader: Loader) -> int | None:
    """Optimizer steps of a budget; None for `minutes`, which must be measured."""
    budget = plan.budget
    if budget.steps is not None:
        return budget.steps
    if budget.epochs is not None:
        return max(1, round(budget.epochs * loader.steps_per_epoch))
    if budget.examples is not None:
        return max(1, math.ceil(budget.examples / loader.batch_size))
    if budget.tokens is not None:
        return max(1, math.ceil(budget.tokens / loader.tokens_per_step()))
    return None


def affordable(budget: float, cost: float) -> int:
    """How many evaluations of `cost` seconds a run of `budget` seconds can pay with 15 % of its time: one to ten."""
    return max(1, min(10, int(_EVALUATING * budget / max(cost, 1e-9))))


class Stopwatch:
    """Times the first steps of a process, to fit a `minutes` budget to them."""

    def __init__(self) -> None:
        self._skipped, self._steps, self._seconds = 0, 0, 0.0

    @property
    def seconds_per_step(self) -> float:
        """Mean of the steps measured."""
        return self._seconds / max(1, self._steps)

    def count(self, seconds: float) -> None:
        """A step took `seconds`."""
        if self._skipped < _SKIP:
            self._skipped += 1
            return
        self._steps += 1
        self._seconds += seconds

    def ready(self, minutes: float) -> bool:
        """Whether enough is measured: three steps, and 5 % of the time or 10 seconds."""
        return self._steps >= 3 and self._seconds >= min(10.0, 0.05 * 60.0 * minutes)

    def steps_in(self, budget: float, spent: float) -> int:
        """Steps that still fit into `budget` seconds when `spent` of them are gone or promised; at least one."""
        return max(1, int((budget * RESERVE - spent) / self.seconds_per_step))


def refitted(step: int, total: int, seconds: float, pace: float) -> int:
    """The length of a `minutes` run whose pace has changed; `total` where it has not, by less than a fifth.

    A machine that others use is at one time six times as slow as at another. Small changes are left alone, so that a
    quiet machine keeps the schedule it began with.

    Args:
        step: steps done.
        total: the present length.
        seconds: that are left for steps.
        pace: seconds of a step of late.
    """
    left = max(1, int(seconds / pace)) if pace > 0 else total - step
    return step + left if abs(left - (total - step)) > _CHANGED * (total - step) else total
