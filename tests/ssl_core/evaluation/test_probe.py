"""kNN and linear probes of frozen features."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_core.evaluation.probe import halves, knn_accuracy, linear_accuracy, probe_scores


def blobs(rows: int, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(rows) % 3
    return torch.randn(rows, 8, generator=generator) + distance * torch.eye(8)[labels], labels


def test_halves_share_every_class_evenly_and_do_not_overlap() -> None:
    labels = np.array([0] * 6 + [1] * 4 + [-1] * 5)
    first, second = halves(labels, seed=0)
    assert not set(first) & set(second)
    assert np.bincount(labels[first]).tolist() == [3, 2] and np.bincount(labels[second]).tolist() == [3, 2]


def test_separate_classes_score_near_one_and_noise_near_chance() -> None:
    for distance, least, most in ((12.0, 0.98, 1.0), (0.0, 0.15, 0.55)):
        vectors, labels = blobs(300, distance)
        scores = probe_scores(vectors, labels.numpy(), seed=0)
        assert all(least <= value <= most for value in scores.values()), scores


def test_the_nearest_neighbour_decides_when_it_votes_alone() -> None:
    train = torch.eye(3)
    assert knn_accuracy(train, torch.tensor([0, 1, 2]), train, torch.tensor([0, 1, 2]), k=1) == 1.0


def test_the_linear_probe_scores_like_scikit_learn() -> None:
    vectors, labels = blobs(300, 1.5)
    scaler = StandardScaler().fit(vectors[:200].numpy())
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(vectors[:200].numpy()), labels[:200].numpy())
    expected = model.score(scaler.transform(vectors[200:].numpy()), labels[200:].numpy())
    assert abs(linear_accuracy(vectors[:200], labels[:200], vectors[200:], labels[200:]) - expected) <= 0.02
