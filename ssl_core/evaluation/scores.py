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


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3.

    By the confidence in the called class, samples fall into bins of equal width, each with its upper edge; the mean
    over samples of how far a bin's accuracy is from its mean confidence.

    Args:
        probabilities: (N, C).
        labels: (N,) int64.
        bins: 15 in the paper.
    """
    confidence, called = probabilities.detach().double().max(1)
    at = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64, device=labels.device)
    gaps.index_add_(0, at, (called == labels).double() - confidence)
    return float(gaps.abs().sum() / len(labels))
