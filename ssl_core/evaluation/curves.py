"""Label-efficiency curves: means with intervals, and the labels that one way of learning saves over another.

Imports without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from ssl_core.evaluation_spec import ReportPoint

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class CurvePoint:
    """An arm at one number of labels.

    Attributes:
        rows: labelled rows it learned from, the mean of the seeds.
        scores: one a seed.
        low, high: the 95 % interval of the mean by Student's t over the seeds; None with one seed.
        minutes: of one training, the mean.
    """

    labels: int | None
    rows: float
    scores: tuple[float, ...]
    low: float | None
    high: float | None
    minutes: float

    @property
    def mean(self) -> float:
        return fmean(self.scores)


@dataclass(frozen=True)
class Saved:
    """What `arm` saves over `other` at one of its points.

    Attributes:
        labels, rows, score: the point of `arm`.
        needed: rows that `other` needs for the same score, between its points by a straight line over log(rows). None
            where it does not reach it within `most` rows (more are needed) or is above it from its first point on.
        least: True where `other` is above the score already at its fewest rows: at most those are needed.
        saved: needed - rows.
        low, high: percentiles of `saved` over resampled seeds, 95 %; None where a bound lies outside what was measured.
    """

    arm: str
    other: str
    labels: int | None
    rows: float
    score: float
    needed: float | None
    most: float
    least: bool
    saved: float | None
    low: float | None
    high: float | None


def curves(points: Sequence[ReportPoint]) -> dict[str, list[CurvePoint]]:
    """The points of each arm, fewest rows first."""
    groups: dict[tuple[str, int | None], list[ReportPoint]] = {}
    for point in points:
        groups.setdefault((point.arm, point.labels), []).append(point)
    found: dict[str, list[CurvePoint]] = {}
    for (arm, labels), mine in groups.items():
        scores = tuple(point.score for point in sorted(mine, key=lambda point: point.seed))
        low, high = interval(scores)
        rows, minutes = fmean(point.rows for point in mine), fmean(point.minutes for point in mine)
        found.setdefault(arm, []).append(CurvePoint(labels, rows, scores, low, high, minutes))
    return {arm: sorted(each, key=lambda point: point.rows) for arm, each in found.items()}


def interval(scores: Sequence[float]) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean by Student's t; (None, None) of fewer than two scores."""
    if len(scores) < 2:
        return None, None
    from scipy.stats import t

    half = float(t.ppf(0.5 + LEVEL / 2, len(scores) - 1)) * stdev(scores) / math.sqrt(len(scores))
    return fmean(scores) - half, fmean(scores) + half


def rows_for(score: float, rows: Sequence[float], means: Sequence[float]) -> float:
    """Rows at which a curve first reaches `score`, by straight lines over log(rows).

    Returns:
        0 where the first point is above it already, infinity where no point reaches it.
    """
    if means[0] >= score:
        return 0.0
    for (r0, s0), (r1, s1) in zip(zip(rows, means, strict=True), zip(rows[1:], means[1:], strict=True), strict=False):
        if s1 >= score:
            share = (score - s0) / (s1 - s0)
            return math.exp(math.log(r0) + share * (math.log(r1) - math.log(r0)))
    return math.inf


def savings(found: Mapping[str, Sequence[CurvePoint]], arm: str, other: str) -> list[Saved]:
    """What `arm` saves over `other`, at each of its points."""
    mine, theirs = found[arm], found[other]
    rows = [point.rows for point in theirs]
    result = []
    for at, point in enumerate(mine):
        needed = rows_for(point.mean, rows, [each.mean for each in theirs])
        reached = 0 < needed < math.inf
        low, high = _interval_of_savings(point, theirs, seed=at) if reached else (None, None)
        result.append(
            Saved(
                arm, other, point.labels, point.rows, point.mean, needed if reached else None, rows[-1], needed == 0,
                needed - point.rows if reached else None, low, high,
            )
        )  # fmt: skip
    return result


def _interval_of_savings(
    point: CurvePoint,
    theirs: Sequence[CurvePoint],
    seed: int,
) -> tuple[float | None, float | None]:
    """Seeds of every point are drawn again with replacement (percentile bootstrap); nothing where all have one seed."""
    if len(point.scores) < 2 and all(len(each.scores) < 2 for each in theirs):
        return None, None
    generator = np.random.Generator(np.random.Philox(key=[seed, 17]))
    wanted = _means(point.scores, generator)
    others = np.stack([_means(each.scores, generator) for each in theirs], axis=1)
    rows = [each.rows for each in theirs]
    needed = np.asarray([rows_for(float(w), rows, list(map(float, o))) for w, o in zip(wanted, others, strict=True)])
    low, high = np.quantile(needed, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return (float(low) - point.rows if low > 0 else None, float(high) - point.rows if np.isfinite(high) else None)


def _means(scores: Sequence[float], generator: np.random.Generator) -> NDArray[np.float64]:
    drawn = generator.integers(0, len(scores), size=(DRAWS, len(scores)))
    means: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)[drawn].mean(axis=1)
    return means
