"""Ends a pretraining run that collapsed or diverged, and says by which number, at which step and what to change.

A collapsed run costs hours and exports a useless model, and its loss may even look good (BYOL's falls to zero). So
every `EVERY` steps a few fixed samples are encoded and their spread is looked at, which costs less than a hundredth of
the training. Needs torch through what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from ssl_core.errors import CollapseError
from ssl_core.nets import Nets

EVERY = 25
"""Steps between two looks."""
STRIKES = 3
"""Bad looks that end a run: one may be a wobble of the first steps."""
WINDOW = 5
"""The last looks among which a collapse is counted: dead weights still twitch where the learning rate is absurd."""
PATIENCE = 20
"""The same where a constant cannot satisfy the loss: a language model tells first how frequent each token is, and its
features lie close together until it knows more. What stays there for 500 steps learns nothing."""

_LEAST_RANK = 1.5
_LEAST_RANK_SHARE = 0.02
_LEAST_SPREAD = 0.05
_LOSS_GROWTH = 2.0
_POORER = 0.25

Pulse = dict[str, float]
"""`effective_rank`, `effective_rank_share` and `spread_mean`, as in `ssl_core.health`."""


class Guard:
    """The judge of one run. What it remembers is a plain dict that lives in the checkpoint.

    Args:
        feel: encodes the fixed samples and measures them; a pure function of the weights.
        action: `fail` raises, `warn` only tells.
        alive: further training series to watch, and the least value of each in a live run.
        constant_wins: as the objective says; where it is False, features that are alike are given longer.
    """

    def __init__(
        self,
        feel: Callable[[Nets], Pulse],
        action: Literal["fail", "warn"],
        alive: Mapping[str, float] = MappingProxyType({}),
        constant_wins: bool = True,
    ) -> None:
        self._feel, self.action, self.alive, self._constant_wins = feel, action, alive, constant_wins

    def look(self, nets: Nets, seen: dict[str, float], memory: dict[str, float]) -> dict[str, float]:
        """Measure, compare with the beginning, count strikes.

        Args:
            nets: in evaluation mode.
            seen: means since the last look of the training `loss` and the series of `alive`; empty before a step.
            memory: changed in place.

        Returns:
            Series under `guard/`.
        """
        pulse = self._feel(nets)
        loss = seen.get("loss")
        for name, value in {**pulse, **({} if loss is None else {"loss": loss})}.items():
            memory.setdefault(f"first_{name}", value)
        for name, least in self.alive.items():
            memory[f"low_{name}"] = memory.get(f"low_{name}", 0.0) + 1 if seen.get(name, least) < least else 0.0
        collapsed = self._collapsed(pulse, memory)
        memory["collapsing"] = memory.get("collapsing", 0.0) + 1 if collapsed else 0.0
        # A bit for each of the last looks: the memory holds numbers alone.
        memory["collapsed_looks"] = float((int(memory.get("collapsed_looks", 0)) << 1 | collapsed) % (1 << WINDOW))
        poorer = pulse["effective_rank"] < _POORER * memory["first_effective_rank"]
        memory["poorer"] = memory.get("poorer", 0.0) + 1 if poorer else 0.0
        growing = loss is not None and _diverged(loss, memory)
        memory["diverging"] = memory.get("diverging", 0.0) + 1 if growing else 0.0
        return {f"guard/{name}": value for name, value in pulse.items()}

    def verdict(
        self, values: dict[str, float], seen: dict[str, float], memory: dict[str, float], step: int
    ) -> str | None:
        """What to tell the user once the strikes are full, else None."""
        if self._has_collapsed(memory):
            rank, spread = values["guard/effective_rank"], values["guard/spread_mean"]
            return (
                f"the representation has collapsed at step {step}: effective rank {rank:.1f} "
                f"(at the start {memory['first_effective_rank']:.1f}), mean spread {spread:.3f} (1 is even, at the "
                f"start {memory['first_spread_mean']:.3f}); lower optimizer.learning_rate, use a larger batch_size, a "
                "usual temperature, or check the data for near-identical rows"
            )
        for name, least in self.alive.items():
            if memory[f"low_{name}"] >= STRIKES:
                return (
                    f"the objective's targets have collapsed at step {step}: {name} is {seen.get(name, 0.0):.3f}, in "
                    f"a live run at least {least:g}; lower optimizer.learning_rate, or go back to the default settings "
                    "of the objective"
                )
        if memory["diverging"] >= STRIKES:
            return (
                f"training diverges at step {step}: the mean loss of the last {EVERY} steps is {seen['loss']:.4g}, of "
                f"the first {EVERY} it was {memory['first_loss']:.4g}; lower optimizer.learning_rate, raise "
                "optimizer.warmup_fraction, or use precision fp32"
            )
        return None

    def _has_collapsed(self, memory: dict[str, float]) -> bool:
        if not self._constant_wins:
            return memory["collapsing"] >= PATIENCE
        return memory["collapsing"] > 0 and int(memory["collapsed_looks"]).bit_count() >= STRIKES

    def _collapsed(self, pulse: Pulse, memory: dict[str, float]) -> bool:
        """Dead in itself, and deader than it was born: untrained features of similar rows may lie close together."""
        if not all(math.isfinite(value) for value in pulse.values()):
            return True
        least = max(_LEAST_RANK, _LEAST_RANK_SHARE * pulse["effective_rank"] / pulse["effective_rank_share"])
        rank = pulse["effective_rank"] < min(least, _POORER * memory["first_effective_rank"])
        spread = pulse["spread_mean"] < min(_LEAST_SPREAD, 0.5 * memory["first_spread_mean"])
        return rank or spread


def advice(values: dict[str, float], memory: dict[str, float]) -> str | None:
    """A warning where the features have lost most of what even an untrained encoder has, without being dead."""
    if memory["poorer"] < STRIKES:
        return None
    rank, first = values["guard/effective_rank"], memory["first_effective_rank"]
    return (
        f"the features are poorer than those of an untrained encoder: effective rank {rank:.1f}, at the start "
        f"{first:.1f}; optimizer.learning_rate may be too high"
    )


def collapse(text: str) -> CollapseError:
    """The error that ends the run."""
    return CollapseError("collapsed", text, "optimizer.learning_rate")


def _diverged(loss: float, memory: dict[str, float]) -> bool:
    first = memory["first_loss"]
    return loss - first > _LOSS_GROWTH * abs(first) + 1.0
