"""Nearest neighbours as a mode of tasks: against scikit-learn, saved and loaded, exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from ssl_core.answer_heads import TEMPERATURE, Neighbours, neighbours_of
from ssl_core.batch import Batch
from ssl_core.evaluation.probe import knn_accuracy
from ssl_core.logistic import class_weights
from ssl_core.tasks.classification import Classification
from ssl_core.tasks.multilabel import Multilabel
from ssl_core.tasks.regression import Regression
from tests.ssl_core.test_classification import CLASSES, batch, encoder


def votes(distances: np.ndarray) -> np.ndarray:
    """Weights of scikit-learn's neighbours: its cosine distance is 1 - cosine."""
    return np.exp((1 - distances) / TEMPERATURE)


def clouds(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(9))
    return centres[labels] + torch.randn(count, 8, generator=generator), labels


@pytest.mark.parametrize("count", [1, 5, 40])
def test_shares_are_those_of_scikit_learn(count: int) -> None:
    (seen, labels), (new, _) = clouds(40, 0), clouds(30, 1)
    head = Neighbours(count, 8, 3)
    head.remember(seen, torch.nn.functional.one_hot(labels, 3))
    reference = KNeighborsClassifier(count, metric="cosine", weights=votes).fit(seen.double(), labels)
    assert np.abs(head(new).numpy() - reference.predict_proba(new.double().numpy())).max() < 1e-5


def test_numbers_are_those_of_scikit_learn() -> None:
    (seen, _), (new, _) = clouds(40, 0), clouds(30, 1)
    numbers = seen.sum(1, keepdim=True)
    head = Neighbours(7, 8, 1)
    head.remember(seen, numbers)
    reference = KNeighborsRegressor(7, metric="cosine", weights=votes).fit(seen.double(), numbers)
    assert np.abs(head(new).numpy() - reference.predict(new.double().numpy())).max() < 1e-4


def test_more_neighbours_than_samples_are_all_samples() -> None:
    (seen, labels), (new, _) = clouds(6, 0), clouds(5, 1)
    few, many = Neighbours(6, 8, 3), Neighbours(1000, 8, 3)
    for head in (few, many):
        head.remember(seen, torch.nn.functional.one_hot(labels, 3))
    assert torch.equal(few(new), many(new))


def test_a_classifier_of_neighbours_calls_what_the_probe_of_pretraining_does() -> None:
    task, seen, new = Classification(mode="knn", neighbours=5), batch(), batch(60)
    nets = task.build(encoder(), CLASSES).eval()
    assert task.begin(nets, [seen]), "nothing is left to train"
    with torch.no_grad():
        found = task.predict(nets, new)["probabilities"]
        vectors = [nets.encoder(each.views[0]) for each in (seen, new)]
    assert (found.sum(1) - 1).abs().max() < 1e-6
    assert seen.labels is not None and new.labels is not None
    expected = knn_accuracy(vectors[0], seen.labels, vectors[1], new.labels, 5)
    assert task.metrics({"probabilities": found}, {"label": new.labels})["accuracy"] == pytest.approx(expected)


def test_balanced_votes_count_by_the_inverse_of_their_classes_numbers() -> None:
    seen = batch(25)  # nine of the first class, eight of the others
    nets, even = (
        Classification(mode="knn", class_weights=kind).build(encoder(), CLASSES) for kind in ("balanced", "none")
    )
    for kind, made in (("balanced", nets), ("none", even)):
        Classification(mode="knn", class_weights=kind).begin(made.eval(), [seen])  # type: ignore[arg-type]
    assert seen.labels is not None
    weights = class_weights(seen.labels, 3)
    with torch.no_grad():
        plain = Classification(mode="knn").predict(even, seen)["probabilities"] * weights
        found = Classification(mode="knn", class_weights="balanced").predict(nets, seen)["probabilities"]
    assert torch.allclose(found, plain / plain.sum(1, keepdim=True))


def test_several_labels_and_numbers_are_told_by_neighbours_too() -> None:
    seen = batch()
    assert seen.labels is not None
    yes = torch.nn.functional.one_hot(seen.labels, 3).bool()
    several = Batch(seen.views, seen.seeds, None, {"labels": yes, "number": seen.labels.double()})
    for task, name in (
        (Multilabel(mode="knn", neighbours=1), "probabilities"),
        (Regression(mode="knn", neighbours=1), "number"),
    ):
        nets = task.build(encoder(), CLASSES).eval()
        assert task.begin(nets, [several])
        with torch.no_grad():
            found = task.predict(nets, several)[name]
        assert torch.allclose(found, (yes if name == "probabilities" else seen.labels).float(), atol=1e-6)


def test_what_is_remembered_is_saved_and_loaded() -> None:
    task = Classification(mode="knn")
    nets, fresh = (task.build(encoder(), CLASSES).eval() for _ in range(2))
    task.begin(nets, [batch()])
    fresh.load_state_dict(nets.state_dict(), strict=True)
    assert torch.equal(neighbours_of(fresh).vectors, neighbours_of(nets).vectors)
    with torch.no_grad():
        assert torch.equal(
            task.predict(fresh, batch(9))["probabilities"], task.predict(nets, batch(9))["probabilities"]
        )
