"""Scores of the examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from examples.scores import accuracy, contact_precision, rank_correlation, tag_accuracy


def test_accuracy_is_the_share_of_right_labels() -> None:
    assert accuracy([{"label": "a"}, {"label": "b"}, {"label": "a"}], ["a", "a", "a"]) == pytest.approx(2 / 3)


def test_unknown_residues_are_left_out_and_unread_ones_are_wrong() -> None:
    answers = [{"tags": "HHE"}, {"tags": "C"}]
    truths = [{"labels": "HEE", "mask": "101"}, {"labels": "CHHH", "mask": "1110"}]
    assert tag_accuracy(answers, truths) == pytest.approx(3 / 5)


def test_contacts_are_judged_by_the_likeliest_fifth_of_the_length() -> None:
    truth = {"sequence": "A" * 10, "contacts": [[0, 9], [1, 7]]}
    answer = {"contacts": [[2, 4, 0.9], [0, 9, 0.8], [0, 8, 0.7], [1, 7, 0.6]]}
    assert contact_precision([answer, answer], [truth, {**truth, "contacts": []}]) == pytest.approx(0.25)


def test_rank_correlation_is_scipys_with_ties() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, 40), random.integers(0, 9, 40)
    answers, truths = [{"number": float(value)} for value in first], [{"label": float(value)} for value in second]
    assert rank_correlation(answers, truths) == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation([{"number": 1.0}] * 40, truths) == 0.0
