"""What is held out."""

from __future__ import annotations

import numpy as np

from ssl_core.splits import held_out, stratified


def test_held_out_samples_are_a_seeded_share_and_never_train() -> None:
    train, held = held_out(200, 0.05, seed=1)
    assert len(held) == 10 and len(train) == 190 and not set(train) & set(held)
    assert held.tolist() == held_out(200, 0.05, seed=1)[1].tolist() != held_out(200, 0.05, seed=2)[1].tolist()


def test_nothing_is_held_out_of_a_handful() -> None:
    assert len(held_out(9, 0.2, seed=0)[1]) == 0


def test_every_class_gives_its_share() -> None:
    labels = np.repeat([0, 1, -1], [20, 10, 7])
    train, held = stratified(labels, 0.2, seed=0)
    assert np.bincount(labels[held]).tolist() == [4, 2]
    assert np.bincount(labels[train]).tolist() == [16, 8]


def test_too_few_labels_of_one_class_keep_all_for_training() -> None:
    labels = np.repeat([0, 1, -1], [50, 5, 3])
    train, held = stratified(labels, 0.2, seed=0)
    assert len(held) == 0 and len(train) == 55
