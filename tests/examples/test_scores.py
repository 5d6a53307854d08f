"""Scores of the examples."""

from __future__ import annotations

import pytest

from examples.scores import accuracy, tag_accuracy


def test_accuracy_is_the_share_of_right_labels() -> None:
    assert accuracy([{"label": "a"}, {"label": "b"}, {"label": "a"}], ["a", "a", "a"]) == pytest.approx(2 / 3)


def test_unknown_residues_are_left_out_and_unread_ones_are_wrong() -> None:
    answers = [{"tags": "HHE"}, {"tags": "C"}]
    truths = [{"labels": "HEE", "mask": "101"}, {"labels": "CHHH", "mask": "1110"}]
    assert tag_accuracy(answers, truths) == pytest.approx(3 / 5)
