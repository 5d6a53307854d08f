"""The picture of a confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_core.evaluation.attention import MARGIN
from ssl_core.evaluation.confusion import picture


@pytest.mark.parametrize("count", [2, 10, 100])
def test_every_class_has_a_row_and_a_column_and_the_diagonal_of_a_good_model_is_dark(count: int) -> None:
    counts = torch.eye(count, dtype=torch.int64) * 50 + 1
    drawn = np.asarray(picture(counts, [f"a class with a long name {at}" for at in range(count)]))
    cell = 36 if count <= 25 else 14
    assert drawn.shape == (MARGIN + cell * count, MARGIN + cell * count)
    corner = drawn[MARGIN : MARGIN + cell, MARGIN:]
    assert corner[2, 2] < 80 and corner[2, cell + 2] > 180


def test_a_row_is_judged_by_its_own_number_of_rows() -> None:
    counts = torch.tensor([[990, 10], [1, 1]])
    drawn = np.asarray(picture(counts, ["often", "seldom"]))
    seldom = drawn[MARGIN + 36 + 2, MARGIN + 2]
    assert 100 < seldom < 160  # half of the two rows


def test_no_class_at_all_has_white_rows() -> None:
    drawn = np.asarray(picture(torch.tensor([[0, 0], [0, 3]]), ["none", "some"]))
    assert drawn[MARGIN + 2, MARGIN + 2] == 255
