"""Scores of frozen features on a small labelled set. Deterministic, no training loop. Needs torch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
    votes = torch.zeros(len(test), int(train_labels.max()) + 1)
    votes.scatter_add_(1, train_labels[neighbours], (weights / 0.07).exp())
    return float((votes.argmax(1) == test_labels).double().mean())


def linear_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Accuracy of L2-regularised multinomial logistic regression on standardised features, fitted by L-BFGS in float64
    from zero; the penalty is scikit-learn's default (C = 1)."""
    mean, deviation = train.double().mean(0), train.double().std(0).clamp_min(1e-6)
    x, x_test = (train.double() - mean) / deviation, (test.double() - mean) / deviation
    classes = int(train_labels.max()) + 1
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        fit = torch.nn.functional.cross_entropy(x @ weight + bias, train_labels)
        loss: Tensor = fit + weight.square().sum() / (2 * len(x))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        return float(((x_test @ weight + bias).argmax(1) == test_labels).double().mean())


def probe_scores(vectors: Tensor, labels: NDArray[np.int64], seed: int) -> dict[str, float]:
    """`probe/knn_accuracy` and `probe/linear_accuracy`: fitted on one half of the labels, scored on the other."""
    first, second = halves(labels, seed)
    target = torch.from_numpy(labels)
    parts = (vectors[first], target[first], vectors[second], target[second])
    return {"probe/knn_accuracy": knn_accuracy(*parts), "probe/linear_accuracy": linear_accuracy(*parts)}
