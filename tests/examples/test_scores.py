"""Scores of the examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from examples.scores import accuracy, box_precision, contact_precision, rank_correlation, tag_accuracy


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


def test_boxes_are_scored_as_the_platform_scores_them() -> None:
    import torch

    from ssl_core.evaluation.detection_scores import average_precisions

    corners = torch.rand(6, 5, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=2).values.flatten(2)
    moved = (corners + 0.03 * torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    kinds = torch.arange(5).remainder(2).repeat(6, 1)
    scores = torch.rand(6, 5, generator=torch.Generator().manual_seed(2))
    sizes = torch.full((6, 2), 100)
    expected = average_precisions(
        {"boxes": moved, "kinds": kinds, "scores": scores}, {"boxes": corners, "kinds": kinds, "sizes": sizes}
    )

    def objects(rows: torch.Tensor, row: int) -> list[dict[str, object]]:
        sides = [[100 * x, 100 * y, 100 * (right - x), 100 * (low - y)] for x, y, right, low in rows[row].tolist()]
        told = zip(sides, kinds[row].tolist(), scores[row].tolist(), strict=True)
        return [{"label": "ab"[kind], "box": box, "score": score} for box, kind, score in told]

    answers = [{"boxes": objects(moved, row)} for row in range(6)]
    found = box_precision(answers, [{"objects": objects(corners, row)} for row in range(6)])
    assert 0 < found < 1
    assert found == pytest.approx(expected["ap50"], abs=1e-6)
