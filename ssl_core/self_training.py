"""Self-training of a linear classifier: it also learns from unlabelled rows, by its own answers. Needs torch.

Pseudo-labels (Yarowsky 1995; Lee 2013, "Pseudo-label") go to a growing share of the rows, the surest of each class
first (class-balanced self-training, Zou et al. 2018, https://arxiv.org/abs/1810.07911), after the answers have been
brought to the labels' shares of the classes (distribution alignment, Berthelot et al. 2020, https://arxiv.org/abs/1911.09785).
Without that, classes that the first answers favour swallow the others.

N labelled and M unlabelled samples, D features, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.logistic import Choice, calibrated, folds_of, places, solve, solve_from

ROUNDS = 10
ROWS = 5_000
"""Unlabelled rows that are read; more hardly change what is learned."""


class Trust(NamedTuple):
    """How far unlabelled rows are trusted.

    Attributes:
        weight: of all of them together, times that of all labelled ones.
        penalty: for each labelled sample. With thousands of rows to learn from, less is needed than for labels alone.
    """

    weight: float
    penalty: float


TRUSTS = (Trust(10.0, 1.0), Trust(3.0, 0.1), Trust(1.0, 0.01))
"""Of which the labels choose. Vectors of topics, whose classes are clouds that touch, want the first; spoken digits, in
tight clusters, the last."""
_FOLDS = 3
_STEPS = 40
_SWEEPS = 20


class Judged(NamedTuple):
    """A linear layer, and what the labels say of it.

    Attributes:
        weight, bias: (C, D) and (C,), calibrated.
        trust: of unlabelled rows; None where held-out labels were told better without them.
        loss, plain_loss: mean log-loss of held-out labels with unlabelled rows and without; NaN where a class has one
            label only, and nothing can be held out.
    """

    weight: Tensor
    bias: Tensor
    trust: Trust | None
    loss: float
    plain_loss: float


def learn(features: Tensor, labels: Tensor, weights: Tensor, pool: Tensor, first: Choice) -> Judged:
    """The layer that learns from unlabelled rows too, or the one that does not, whichever tells held-out labels better.

    Args:
        features, labels, weights: as for `ssl_core.logistic.solve`.
        pool: (M, D) unlabelled rows.
        first: penalty and scale of the layer that learns from labels alone.
    """
    seen = Seen(features, labels, weights)
    if folds_of(labels, weights, _FOLDS) < 2:
        return Judged(*_rounds(seen, pool, first.penalty, TRUSTS[0]), TRUSTS[0], float("nan"), float("nan"))
    total = float(weights[labels].double().sum())
    plain, *others = [calibrated(each, labels.cpu(), weights.cpu()) for each in _held_out(seen, pool, first)]
    at = min(range(len(TRUSTS)), key=lambda index: others[index].loss)
    losses = others[at].loss / total, plain.loss / total
    if losses[0] >= losses[1]:
        weight, bias = solve(*seen, first.penalty)
        return Judged(first.scale * weight, first.scale * bias, None, *losses)
    weight, bias = _rounds(seen, pool, first.penalty, TRUSTS[at])
    return Judged(others[at].scale * weight, others[at].scale * bias, TRUSTS[at], *losses)


def told(found: Judged, rows: int) -> str:
    """What came of it, in a sentence."""
    if found.loss != found.loss:
        return f"learned from {rows:,} unlabelled rows too; a class has one label only, so nothing says if that helps"
    losses = f"{found.loss:.3f} with {rows:,} unlabelled rows, {found.plain_loss:.3f} without"
    outcome = "they are not learned from" if found.trust is None else "they are learned from"
    return f"log-loss of held-out labels {losses}: {outcome}"


class Seen(NamedTuple):
    """Labelled samples: features, labels and classes' weights as for `ssl_core.logistic.solve`."""

    features: Tensor
    labels: Tensor
    weights: Tensor


def _held_out(seen: Seen, pool: Tensor, first: Choice) -> Tensor:
    """(1 + trusts, N, C) logits of each labelled sample by layers that have not seen its label; the first of them has
    learned from labels alone."""
    features, labels, weights = seen
    folds, place = folds_of(labels, weights, _FOLDS), places(labels, len(weights))
    held = torch.zeros(1 + len(TRUSTS), len(labels), len(weights), dtype=torch.float64)
    for fold in range(folds):
        out = place % folds == fold
        part, penalty = Seen(features[~out], labels[~out], weights), first.penalty * float((~out).double().mean())
        layers = [solve(*part, penalty, _STEPS), *(_rounds(part, pool, penalty, trust) for trust in TRUSTS)]
        for at, layer in enumerate(layers):
            held[at, out.cpu()] = F.linear(features[out], *layer).double().cpu()
    return held


def _rounds(seen: Seen, pool: Tensor, penalty: float, trust: Trust) -> tuple[Tensor, Tensor]:
    """Weight and bias after `ROUNDS` rounds; the last one learns from all rows of the pool.

    Args:
        seen, pool: as for `learn`.
        penalty: of the layer that the first round starts from, which learns from labels alone.
        trust: of the pool.
    """
    features, labels, weights = seen
    share = torch.bincount(labels, weights[labels].double(), minlength=len(weights))
    share, own = share / share.sum(), weights[labels].double()
    layer = solve(features, labels, weights, penalty, _STEPS)
    for turn in range(1, ROUNDS + 1):
        guesses = aligned(F.linear(pool, *layer).double().softmax(1), share)
        chosen = surest(guesses, turn / ROUNDS)
        theirs = own.new_full((len(chosen),), float(own.sum()) * trust.weight / len(chosen))
        each = torch.cat([own, theirs]) / (1 + trust.weight)
        both = torch.cat([features, pool[chosen]]), torch.cat([labels, guesses[chosen].argmax(1)])
        layer = solve_from(layer, *both, each, trust.penalty * len(labels), _STEPS)
    return layer


def aligned(probabilities: Tensor, share: Tensor) -> Tensor:
    """(M, C) probabilities brought to classes of these shares (C,) over all rows: Sinkhorn's iteration."""
    found = probabilities.clamp_min(1e-9)
    for _ in range(_SWEEPS):
        found = found / found.sum(0) * share
        found = found / found.sum(1, keepdim=True)
    return found


def surest(probabilities: Tensor, part: float) -> Tensor:
    """(K,) rows: of those that each class is likeliest for, this part, at least one, the surest first."""
    sure, guess = probabilities.max(1)
    order = sure.argsort(descending=True, stable=True)
    chosen = []
    for label in range(probabilities.shape[1]):
        members = order[guess[order] == label]
        chosen.append(members[: max(1, round(part * len(members)))])
    return torch.cat(chosen)
