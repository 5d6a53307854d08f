"""Scores of frozen features on a small labelled set. Deterministic, no training loop. Needs torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core.logistic import solve


def halves(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two index sets, each class shared out evenly; a class with one example only goes to the first."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 1]))
    first, second = [], []
    for label in np.unique(labels[labels >= 0]):
        members = generator.permutation(np.flatnonzero(labels == label))
        middle = (len(members) + 1) // 2
        first.append(members[:middle])
        second.append(members[middle:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int = 20) -> float:
    """Weighted k-nearest-neighbour accuracy by cosine, votes exp(similarity / 0.07): Wu et al. 2018, "Unsupervised
    feature learning via non-parametric instance discrimination", arXiv 1805.01978, section 3.4.

    Args:
        train, test: (N, D) and (M, D) features; labels (N,) and (M,) int64.
        k: neighbours that vote; at most N.
    """
    similarity = torch.nn.functional.normalize(test, dim=1) @ torch.nn.functional.normalize(train, dim=1).T
    weights, neighbours = similarity.topk(min(k, len(train)), dim=1)
    votes = torch.zeros(len(test), int(max(train_labels.max(), test_labels.max())) + 1)
    votes.scatter_add_(1, train_labels[neighbours], (weights / 0.07).exp())
    return float((votes.argmax(1) == test_labels).double().mean())


def linear_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Accuracy of multinomial logistic regression on standardised features, penalty 1 (scikit-learn's default C)."""
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-6)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    weight, bias = solve((train - mean) / deviation, train_labels, torch.ones(classes), penalty=1.0)
    guesses = torch.nn.functional.linear((test - mean) / deviation, weight, bias).argmax(1)
    return float((guesses == test_labels).double().mean())


def probe_scores(vectors: Tensor, labels: NDArray[np.int64], seed: int) -> dict[str, float]:
    """`probe/knn_accuracy` and `probe/linear_accuracy`: fitted on one half of the labels, scored on the other."""
    first, second = halves(labels, seed)
    target = torch.from_numpy(labels)
    parts = (vectors[first], target[first], vectors[second], target[second])
    return {"probe/knn_accuracy": knn_accuracy(*parts), "probe/linear_accuracy": linear_accuracy(*parts)}
