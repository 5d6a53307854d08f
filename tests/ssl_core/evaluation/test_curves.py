"""Label-efficiency curves: intervals, the labels saved, and what is said where a curve does not reach a score."""

from __future__ import annotations

import math

import pytest
from scipy.stats import bootstrap, t

from ssl_core.evaluation.curves import curves, interval, rows_for, savings
from ssl_core.evaluation_spec import Arm, ReportPoint


def points(arm: Arm, scores: dict[int, list[float]]) -> list[ReportPoint]:
    return [
        ReportPoint(arm=arm, labels=count, rows=count, seed=seed, score=score, minutes=0.5, job="job_x")
        for count, each in scores.items()
        for seed, score in enumerate(each)
    ]


def test_the_interval_of_a_mean_is_students() -> None:
    scores = [0.5, 0.6, 0.55, 0.52]
    low, high = interval(scores)
    mean, error = sum(scores) / 4, (sum((s - 0.5425) ** 2 for s in scores) / 3 / 4) ** 0.5
    assert low == pytest.approx(t.interval(0.95, 3, loc=mean, scale=error)[0])
    assert high == pytest.approx(t.interval(0.95, 3, loc=mean, scale=error)[1])
    assert interval([0.5]) == (None, None)


def test_rows_between_two_points_lie_on_a_line_over_their_logarithm() -> None:
    assert rows_for(0.5, [10, 1000], [0.4, 0.6]) == pytest.approx(100)
    assert rows_for(0.6, [10, 1000], [0.4, 0.6]) == pytest.approx(1000)
    assert rows_for(0.3, [10, 1000], [0.4, 0.6]) == 0
    assert rows_for(0.7, [10, 1000], [0.4, 0.6]) == math.inf
    assert rows_for(0.5, [10, 100, 1000], [0.4, 0.3, 0.5]) == pytest.approx(1000), "a dip on the way is passed over"


def test_what_is_saved_is_the_distance_between_the_curves_at_equal_score() -> None:
    found = curves([*points("full", {10: [0.5, 0.5]}), *points("scratch", {10: [0.4, 0.4], 1000: [0.6, 0.6]})])
    (row,) = savings(found, "full", "scratch")
    assert row.needed == pytest.approx(100)
    assert row.saved == pytest.approx(90)
    assert (row.low, row.high) == pytest.approx((90, 90)), "equal seeds leave nothing uncertain"


def test_its_interval_comes_from_seeds_drawn_again() -> None:
    mine = [0.48, 0.5, 0.52, 0.5, 0.49]
    found = curves([*points("full", {10: mine}), *points("scratch", {10: [0.4], 1000: [0.6]})])
    (row,) = savings(found, "full", "scratch")
    reference = bootstrap(
        (mine,), lambda x, axis: 10 ** (1 + (x.mean(axis=axis) - 0.4) / 0.1), method="percentile", n_resamples=20_000,
        rng=1,
    ).confidence_interval  # fmt: skip
    assert row.low is not None and row.high is not None
    assert row.low + 10 == pytest.approx(reference.low, rel=0.03)
    assert row.high + 10 == pytest.approx(reference.high, rel=0.03)
    assert row.low < (row.saved or 0) < row.high


def test_a_score_beyond_the_other_curve_gives_no_number() -> None:
    found = curves([*points("full", {10: [0.9]}), *points("scratch", {10: [0.4], 1000: [0.6]})])
    (row,) = savings(found, "full", "scratch")
    assert (row.needed, row.saved, row.least, row.most) == (None, None, False, 1000)


def test_a_score_below_the_other_curve_saves_nothing() -> None:
    found = curves([*points("full", {10: [0.3]}), *points("scratch", {10: [0.4], 1000: [0.6]})])
    (row,) = savings(found, "full", "scratch")
    assert (row.needed, row.saved, row.least) == (None, None, True)
