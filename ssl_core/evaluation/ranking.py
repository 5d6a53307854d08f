"""Scores of a ranking by probability, one class against the rest. Needs torch; N samples, C classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean over classes of the area under precision and recall as a step function, as scikit-learn's
    `average_precision_score`.

    Args:
        scores: (N, C), higher = likelier.
        labels: (N,) int64. A class that has no sample, or all of them, is left out; NaN where none is left.
    """
    return _over_classes(scores, labels, binary_average_precision)


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Mean over classes of the area under the receiver's curve, as scikit-learn's `roc_auc_score`; arguments as for
    `average_precision`."""
    return _over_classes(scores, labels, binary_auroc)


def _over_classes(scores: Tensor, labels: Tensor, measure: Callable[[Tensor, Tensor], float]) -> float:
    found = []
    for index in range(scores.shape[1]):
        positive = labels == index
        if bool(positive.any()) and not bool(positive.all()):
            found.append(measure(scores[:, index], positive))
    return sum(found) / len(found) if found else float("nan")


def binary_average_precision(scores: Tensor, positive: Tensor) -> float:
    """Of (N,) scores and (N,) bool; equal scores are one threshold."""
    order = scores.argsort(descending=True)
    hits = positive[order].double().cumsum(0)
    last = _last_of_equal(scores[order])
    precision = hits[last] / (last + 1)
    recall = hits[last] / hits[-1]
    return float((precision * torch.diff(recall, prepend=recall.new_zeros(1))).sum())


def binary_auroc(scores: Tensor, positive: Tensor) -> float:
    """Of (N,) scores and (N,) bool: the share of pairs of a positive and a negative in order, a tie counts a half."""
    count = positive.sum().double()
    total = _ranks(scores)[positive].sum()
    return float((total - count * (count + 1) / 2) / (count * (len(scores) - count)))


def spearman(first: Tensor, second: Tensor) -> float:
    """Correlation of the ranks of (N,) and (N,), equal values sharing their mean rank; 0 where either is constant."""
    a, b = (_ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = float(a.square().sum() * b.square().sum()) ** 0.5
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    """(N,) from 1, equal ones sharing their mean."""
    order = values.argsort()
    last = _last_of_equal(values[order])
    first = torch.cat([last.new_zeros(1), last[:-1] + 1])
    group = torch.searchsorted(last, torch.arange(len(values), device=values.device))
    ranks = torch.empty(len(values), dtype=torch.float64, device=values.device)
    ranks[order] = (first[group] + last[group]).double() / 2 + 1
    return ranks


def _last_of_equal(ordered: Tensor) -> Tensor:
    """(groups,) the place of the last of each run of equal values."""
    changes = (ordered[1:] != ordered[:-1]).nonzero()[:, 0]
    return torch.cat([changes, changes.new_tensor([len(ordered) - 1])])
