"""Classification: the probe against scikit-learn, fine-tuning, scores, answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss
from sklearn.utils.class_weight import compute_class_weight

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.heads import Classifier, FinetunedNets, batch_norms, classifier_of
from ssl_core.logistic import PENALTIES, USUAL_PENALTY, Choice, choose, class_weights, solve
from ssl_core.nets import Nets
from ssl_core.tasks.classification import Classification

CLASSES = ["cat", "dog", "owl"]


def encoder(seen: bool = True) -> Encoder:
    """A small conv net, whose batch averages have seen data or not."""
    torch.manual_seed(0)
    net = build_encoder(EncoderSpec(name="custom", family="convnet", width=16, depth=2), {"channels": 1, "size": 8})
    if seen:
        net.train()(torch.randn(32, 1, 8, 8))
    return net.eval()


def batch(count: int = 24, classes: int = 3) -> Batch:
    """Pictures whose mean brightness tells the class."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % classes
    pictures = torch.randn(count, 1, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
    return Batch((pictures,), torch.arange(count), labels)


def begun(task: Classification, net: Encoder | None = None) -> tuple[Nets, bool]:
    nets = task.build(net or encoder(), CLASSES).eval()
    return nets, task.begin(nets, [batch()])


def clouds(seed: int = 0, count: int = 60, width: int = 10, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    centres = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    return centres[labels] + torch.randn(count, width, generator=generator, dtype=torch.float64), labels


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_solution_is_that_of_scikit_learn(penalty: float, balanced: bool) -> None:
    features, labels = clouds()
    weights = class_weights(labels, 4) if balanced else torch.ones(4)
    weight, bias = solve(features, labels, weights, penalty)
    reference = LogisticRegression(
        C=1 / penalty, class_weight="balanced" if balanced else None, tol=1e-10, max_iter=5000
    ).fit(features.numpy(), labels.numpy())
    expected = reference.predict_proba(features.numpy())
    found = (features @ weight.T + bias).softmax(1).numpy()
    assert np.abs(found - expected).max() < 1e-5


def test_clear_classes_get_a_small_penalty_and_noise_a_large_one() -> None:
    labels = clouds(width=3)[1]
    centres = torch.eye(4, dtype=torch.float64)[labels]
    shift = 2 * torch.randn(60, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    clear, noisy = (choose(rows, labels, torch.ones(4)).penalty for rows in (20 * centres, 0.3 * centres + shift))
    assert clear <= 10 <= 100 <= noisy


def test_noise_is_answered_with_the_frequencies_of_the_classes() -> None:
    labels = clouds(width=3)[1]
    noise = torch.randn(60, 30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    chosen = choose(noise, labels, torch.ones(4))
    weight, bias = solve(noise, labels, torch.ones(4), chosen.penalty)
    told = (chosen.scale * (noise @ weight.T + bias)).softmax(1)
    assert (told - torch.bincount(labels) / 60).abs().max() < 0.1


def test_probabilities_of_few_labels_are_calibrated() -> None:
    features, labels = clouds(count=2000, width=60)
    few, rest = slice(0, 60), slice(60, 2000)
    chosen = choose(features[few], labels[few], torch.ones(4))
    weight, bias = solve(features[few], labels[few], torch.ones(4), chosen.penalty)
    logits = features[rest] @ weight.T + bias

    def loss(scale: float) -> float:
        return log_loss(labels[rest], (scale * logits).softmax(1), labels=range(4))

    assert loss(chosen.scale) < loss(1.0)
    assert loss(chosen.scale) < min(loss(scale) for scale in np.logspace(-2, 2, 81)) + 0.05


def test_the_chosen_penalty_has_the_least_calibrated_held_out_loss_of_all() -> None:
    features, labels = clouds(width=20)
    order = torch.argsort(labels, stable=True)  # folds must not depend on how the rows are sorted by class
    losses = {}
    for penalty in PENALTIES:
        logits = np.zeros((60, 4))
        for fold in range(5):
            held = torch.zeros(60, dtype=torch.bool)
            for label in range(4):
                held[(labels == label).nonzero()[:, 0][fold::5]] = True
            model = LogisticRegression(C=1 / (penalty * float((~held).double().mean())), tol=1e-10, max_iter=5000)
            model.fit(features[~held].numpy(), labels[~held].numpy())
            logits[held.numpy()] = model.decision_function(features[held].numpy())
        for scale in np.logspace(-2, 2, 81):
            losses[penalty, scale] = log_loss(labels, softmax(scale * logits, axis=1), labels=range(4))
    expected = min(losses, key=lambda pair: losses[pair])
    assert choose(features, labels, torch.ones(4)) == pytest.approx(expected)
    assert choose(features[order], labels[order], torch.ones(4)) == pytest.approx(expected)


def test_rows_of_a_class_without_weight_have_no_say_in_the_penalty() -> None:
    features, labels = clouds(count=60, width=20)
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0])  # only one class counts, so no penalty can cost anything held out
    alone = choose(features, labels, weights)
    noise = choose(torch.where(labels[:, None] == 0, features, 50 * torch.randn(60, 20).double()), labels, weights)
    assert alone.penalty == noise.penalty


def test_a_class_with_one_sample_gets_the_usual_penalty() -> None:
    assert choose(torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 2]), torch.ones(3)) == Choice(USUAL_PENALTY, 1.0)


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    assert class_weights(labels, 3).numpy() == pytest.approx(expected)
    assert class_weights(labels, 4)[3] == 0


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(80, 7, generator=generator)
    labels = torch.randint(0, 5, (80,), generator=generator)  # classes 5 and 6 occur in predictions only
    found = Classification().metrics({"probabilities": probabilities}, {"label": labels})
    predicted = probabilities.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    each = [average_precision_score(labels == index, probabilities[:, index]) for index in range(5)]
    assert found["average_precision"] == pytest.approx(np.mean(each))


def test_rows_of_one_class_have_no_ranking_to_score() -> None:
    labels, probabilities = torch.zeros(4, dtype=torch.int64), torch.full((4, 2), 0.5)
    assert Classification().metrics({"probabilities": probabilities}, {"label": labels})["average_precision"] == 0.0


def test_a_probe_is_solved_without_training_and_leaves_the_encoder_alone() -> None:
    net = encoder()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    nets, solved = begun(Classification(mode="linear_probe"), net)
    assert solved
    nets.train()
    task = Classification(mode="linear_probe")
    task.loss(nets, batch())["loss"].backward()
    assert all(parameter.grad is None for parameter in nets.encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in nets.encoder.state_dict().items())
    labels = batch().labels
    assert labels is not None
    assert task.metrics(task.predict(nets.eval(), batch()), {"label": labels})["accuracy"] > 0.9


def test_a_probe_sees_features_of_mean_zero_and_deviation_one() -> None:
    nets, _ = begun(Classification(mode="linear_probe"))
    standard = classifier_of(nets).standard(nets.encoder(batch().views[0]))
    live = standard.std(0, correction=0) > 1e-3
    assert live.any()
    assert torch.allclose(standard[:, live].mean(0), torch.zeros(int(live.sum())), atol=1e-4)
    assert torch.allclose(standard[:, live].std(0, correction=0), torch.ones(int(live.sum())), atol=1e-3)


def test_a_dimension_without_deviation_gives_finite_features() -> None:
    head = Classifier(3, 2, 0.0)
    head.standardise(torch.tensor([[1.0, 5.0, 0.0], [2.0, 5.0, 0.0]]))
    assert torch.isfinite(head(torch.tensor([[1.0, 6.0, 1e-9]]))).all()


def test_full_fine_tuning_starts_from_the_probe_and_goes_on() -> None:
    task = Classification()
    nets, solved = begun(task)
    assert not solved
    probe, _ = begun(Classification(mode="linear_probe"))
    assert torch.equal(classifier_of(nets).linear.weight, classifier_of(probe).linear.weight)
    task.loss(nets.train(), batch())["loss"].backward()
    assert all(parameter.grad is not None for parameter in nets.parameters())


def test_pretrained_batch_averages_are_kept_also_after_a_reload() -> None:
    nets, _ = begun(Classification())
    again = Classification().build(encoder(), CLASSES)
    again.load_state_dict(nets.state_dict())
    for each in (nets, again):
        assert not any(norm.training for norm in batch_norms(each.train().encoder))
        assert each.encoder.training


def test_a_fresh_conv_net_learns_its_batch_averages_in_training() -> None:
    nets, solved = begun(Classification(), encoder(seen=False))
    assert not solved
    assert isinstance(nets, FinetunedNets)
    assert all(norm.training for norm in batch_norms(nets.train().encoder))
    assert not classifier_of(nets).linear.weight.any()


def test_balanced_weights_enter_the_loss() -> None:
    skewed = batch(25)
    task = Classification(class_weights="balanced")
    nets = task.build(encoder(), CLASSES).eval()
    task.begin(nets, [skewed])
    assert torch.allclose(classifier_of(nets).class_weights, class_weights(skewed.labels, 3))
    logits = classifier_of(nets)(nets.encoder(skewed.views[0]))
    each = class_weights(skewed.labels, 3)[skewed.labels]
    expected = -(logits.log_softmax(1)[torch.arange(25), skewed.labels] * each).sum() / each.sum()
    assert torch.allclose(task.loss(nets, skewed)["loss"], expected, atol=1e-6)


def test_label_smoothing_keeps_the_loss_of_a_sure_answer_above_zero() -> None:
    nets, _ = begun(Classification())
    plain, smooth = (
        float(Classification(label_smoothing=s).loss(nets, batch())["loss"].detach()) for s in (0.0, 0.2)
    )
    assert smooth > plain


def test_an_answer_names_the_likeliest_class_and_all_probabilities() -> None:
    outputs = {"probabilities": torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])}
    answer = Classification().answer(outputs, 1, CLASSES)
    assert answer == {"label": "cat", "probabilities": {"cat": 0.5, "dog": 0.25, "owl": 0.25}}


def test_probabilities_add_up_to_one() -> None:
    nets, _ = begun(Classification())
    probabilities = Classification().predict(nets, batch())["probabilities"]
    assert probabilities.shape == (24, 3)
    assert torch.allclose(probabilities.sum(1), torch.ones(24))


def test_training_without_labels_is_refused() -> None:
    nets, _ = begun(Classification())
    with pytest.raises(ValueError, match="needs labels"):
        Classification().loss(nets, Batch(batch().views, batch().seeds))


BAD = [{"mode": "linear"}, {"head_dropout": 1.0}, {"penalty": 0.0}, {"class_weights": "x"}]


@pytest.mark.parametrize("fields", BAD)
def test_a_setting_out_of_bounds_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        Classification.model_validate(fields)
