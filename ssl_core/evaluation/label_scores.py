"""Scores where a sample has several labels. Needs torch; N samples, C classes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def macro_f1(given: Tensor, truth: Tensor) -> float:
    """Unweighted mean over classes of F1, of (N, C) bool; as scikit-learn's `f1_score` with `average="macro"`.

    A class counts if a sample has it or is given it (`zero_division=nan`); NaN where none does."""
    right, claimed, present = (part.sum(0).double() for part in (given & truth, given, truth))
    seen = (claimed + present) > 0
    return float((2 * right[seen] / (claimed + present)[seen]).mean())


def micro_f1(given: Tensor, truth: Tensor) -> float:
    """F1 of all yeses together, of (N, C) bool; NaN where there is none on either side."""
    return float(2 * (given & truth).sum().double() / (given.sum() + truth.sum()).double())


def mean_over_classes(scores: Tensor, truth: Tensor, measure: Callable[[Tensor, Tensor], float]) -> float:
    """The mean of a measure of (N,) scores and (N,) bool over the columns of (N, C); a class that has no sample, or all
    of them, is left out. NaN where none is left."""
    counts = truth.sum(0)
    kept = ((counts > 0) & (counts < len(truth))).nonzero().squeeze(1).tolist()
    found = [measure(scores[:, at], truth[:, at]) for at in kept]
    return sum(found) / len(found) if found else float("nan")
