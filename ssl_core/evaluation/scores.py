"""Scores of predicted classes against true ones. Needs torch; N samples."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of (N,) predictions that are right."""
    return float((predicted == labels).double().mean())


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """Unweighted mean over classes of the harmonic mean of precision and recall, as scikit-learn's `f1_score`.

    A class counts if it occurs among the labels or the predictions, both (N,) int64.
    """
    classes = int(torch.maximum(predicted.max(), labels.max())) + 1
    right = torch.bincount(labels[predicted == labels], minlength=classes).double()
    claimed = torch.bincount(predicted, minlength=classes).double()
    present = torch.bincount(labels, minlength=classes).double()
    seen = (claimed + present) > 0
    return float((2 * right[seen] / (claimed + present)[seen]).mean())
