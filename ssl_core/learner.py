"""What the trainer trains and asks: the verbs an objective and a task share, the scores, the outcome. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.checkpoint import TrainState
from ssl_core.context import StopReason
from ssl_core.guard import Guard
from ssl_core.nets import Nets


class Learner(Protocol):
    """What an objective and a task have in common."""

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]: ...

    def after_step(self, nets: Nets, progress: float) -> None: ...


class Evaluation(Protocol):
    """Scores taken now and then while training."""

    @property
    def watched(self) -> str | None:
        """The series early stopping watches; None = the last weights are the result."""

    @property
    def lower_is_better(self) -> bool:
        """Of the watched series."""

    @property
    def guard(self) -> Guard | None:
        """Ends a run that is past saving; None = nobody does."""

    def every(self, total_steps: int, steps_per_epoch: int) -> int:
        """Steps between two evaluations."""

    def measure(self, nets: Nets) -> dict[str, float]:
        """Series by name. A pure function of the weights."""

    def warnings(self, metrics: dict[str, float]) -> dict[str, str]:
        """Sentences for the user by code; each code is sent once in a run."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended; `reason` is set where it was stopped from outside."""

    status: Literal["done", "stopped"]
    state: TrainState
    reason: StopReason | None = None


class TrainStep(nn.Module):
    """What DDP wraps: calling the loss past the wrapper would skip the gradient sync without a word.

    Attributes:
        compiled: stands in for the learner's loss (`ssl_core.compiled`).
    """

    def __init__(self, learner: Learner, nets: Nets) -> None:
        super().__init__()
        self.learner, self.nets = learner, nets
        self.compiled: Callable[[Nets, Batch], dict[str, Tensor]] | None = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return (self.compiled or self.learner.loss)(self.nets, batch)
