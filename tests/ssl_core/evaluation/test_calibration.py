"""The expected calibration error, against its formula."""

from __future__ import annotations

import pytest
import torch

from ssl_core.evaluation.scores import calibration_error


def test_the_calibration_error_is_the_papers_sum_over_bins() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(200, 4, generator=generator, dtype=torch.float64).mul(2).softmax(1)
    labels = torch.randint(0, 4, (200,), generator=generator)
    expected = 0.0
    for number in range(15):
        inside = [
            (float(row.max()), int(row.argmax()) == int(label))
            for row, label in zip(probabilities, labels, strict=True)
            if number / 15 < float(row.max()) <= (number + 1) / 15
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(sure for sure, _ in inside) / len(inside)
            expected += len(inside) / 200 * abs(accuracy - confidence)
    assert calibration_error(probabilities, labels) == pytest.approx(expected)


def test_certainty_that_is_always_right_has_no_error_and_always_wrong_has_all() -> None:
    certain = torch.eye(3)
    assert calibration_error(certain, torch.tensor([0, 1, 2])) == 0.0
    assert calibration_error(certain, torch.tensor([1, 2, 0])) == 1.0
