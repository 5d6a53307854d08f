"""The tagging task: features of tokens, the probe's solution, scores, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ssl_core import token_probe
from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch, Tokens
from ssl_core.encoders import build_encoder
from ssl_core.errors import SpecError
from ssl_core.evaluation.ranking import auroc, average_precision
from ssl_core.heads import classifier_of
from ssl_core.inference import load
from ssl_core.recipes import resolve
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import JOB_SPEC, DatasetFacts, FinetuneSpec
from ssl_core.tasks.tagging import Tagging
from ssl_core.token_probe import Reading, outputs_of, tagged_features
from tests.ssl_core import datasets

FACTS = {"vocab_size": 40, "max_length": 32, "pad_id": 1, "mask_id": 32}
SHAPE = EncoderSpec.model_validate({**datasets.TINY_TEXT, "depth": 3, "dropout": 0.0})


def batch(rows: int = 12, length: int = 20, seed: int = 0) -> Batch:
    """Residues whose tag says whether their number is even, some unknown; rows end in padding."""
    torch.manual_seed(seed)
    ids = torch.randint(4, 30, (rows, length))
    sizes = torch.randint(8, length + 1, (rows, 1))
    real = torch.arange(length) < sizes
    tags = torch.where(real & (torch.rand(rows, length) < 0.8), ids % 2, -1)
    segments = torch.where(real, 0, -1).to(torch.int32)
    view = Tokens(ids, segments, torch.arange(length).expand(rows, -1))
    return Batch((view,), torch.arange(rows), None, {"tags": tags})


def made(**fields: Any) -> tuple[Tagging, Any]:
    torch.manual_seed(0)
    task = Tagging(**fields)
    return task, task.build(build_encoder(SHAPE, FACTS), ["even", "odd"]).eval()


def test_the_probe_is_the_solution_of_scikit_learn_on_the_same_vectors() -> None:
    task, nets = made(mode="linear_probe", penalty=5.0)
    one = batch()
    assert task.begin(nets, [one])
    tags = one.targets["tags"]
    with torch.no_grad():
        vectors = nets.encoder.encode(one.views[0])[tags >= 0].double()
        ours = task.predict(nets, one)["probabilities"][tags >= 0]
    standard = ((vectors - vectors.mean(0)) / vectors.std(0, correction=0)).numpy()
    theirs = LogisticRegression(C=2 / 5.0, max_iter=1000, tol=1e-8).fit(standard, tags[tags >= 0])
    # Of two classes scikit-learn fits one vector, twice as long as each of our pair.
    assert np.allclose(ours.numpy(), theirs.predict_proba(standard), atol=1e-4)


def test_all_layers_stand_side_by_side_and_the_last_is_the_encoders_output() -> None:
    _, nets = made(layers="all")
    view = batch().views[0]
    with torch.no_grad():
        every, last = outputs_of(nets.encoder, view, True), outputs_of(nets.encoder, view, False)
    assert every.shape == (12, 20, 3 * 32)
    assert torch.equal(every[:, :, 64:], last)
    assert classifier_of(nets).linear.in_features == 96
    assert not torch.allclose(every[:, :, :32], every[:, :, 32:64])


def test_neighbours_stand_beside_a_token_and_nothing_beyond_its_document() -> None:
    _, nets = made(context=2)
    view = batch().views[0]
    assert isinstance(view, Tokens)
    with torch.no_grad():
        alone = nets.encoder.encode(view)
        (wide,) = Reading(False, 2).pieces(nets.encoder, view)
    size = int((view.segments[0] >= 0).sum())
    assert wide.shape == (12, 20, 5 * 32)
    assert torch.equal(wide[0, 5], alone[0, 3:8].flatten())
    assert torch.equal(wide[0, size - 1], torch.cat([alone[0, size - 3 : size].flatten(), torch.zeros(64)]))
    assert not wide[0, 0, :64].any()


def test_rows_made_a_few_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task, nets = made(mode="linear_probe", context=1, penalty=3.0)
    one = batch()
    task.begin(nets, [one])
    whole, found = task.predict(nets, one), tagged_features(nets.encoder, [one, one], Reading(False, 1))
    monkeypatch.setattr(token_probe, "AT_ONCE", 5 * 20 * 96)
    assert torch.allclose(task.predict(nets, one)["probabilities"], whole["probabilities"], atol=1e-6)
    again = tagged_features(nets.encoder, [one, one], Reading(False, 1))
    assert torch.equal(again.rows, found.rows) and torch.equal(again.labels, found.labels)
    assert torch.allclose(again.vectors, found.vectors)
    assert int(again.rows.max()) == 23


def test_unknown_tags_and_padding_do_not_move_loss_or_scores() -> None:
    task, nets = made()
    one = batch()
    tags = one.targets["tags"]
    task.begin(nets, [one])
    logits = classifier_of(nets)(nets.encoder.encode(one.views[0]))
    expected = torch.nn.functional.cross_entropy(logits[tags >= 0], tags[tags >= 0])
    assert torch.allclose(task.loss(nets, one)["loss"], expected)
    outputs = {name: value.detach() for name, value in task.predict(nets, one).items()}
    right = (outputs["probabilities"].argmax(2) == tags)[tags >= 0]
    assert task.metrics(outputs, {"tags": tags})["accuracy"] == pytest.approx(float(right.double().mean()))


def test_tags_longer_or_shorter_than_what_is_read_are_cut_or_unknown() -> None:
    task, nets = made()
    one = batch()
    tags = one.targets["tags"]
    longer = torch.nn.functional.pad(tags, (0, 7), value=1)
    cut = Batch(one.views, one.seeds, None, {"tags": tags[:, :5]})
    blank = torch.nn.functional.pad(tags[:, :5], (0, 15), value=-1)
    assert torch.equal(
        task.loss(nets, one)["loss"], task.loss(nets, Batch(one.views, one.seeds, None, {"tags": longer}))["loss"]
    )
    same = Batch(one.views, one.seeds, None, {"tags": blank})
    assert torch.equal(task.loss(nets, cut)["loss"], task.loss(nets, same)["loss"])


@pytest.mark.parametrize("ties", [False, True])
def test_scores_equal_scikit_learn(ties: bool) -> None:
    random = np.random.default_rng(1)
    scores = random.random((4, 30, 5))
    scores = np.round(scores, 1) if ties else scores
    tags = random.integers(-1, 4, (4, 30))  # class 4 never occurs
    known, true = scores[tags >= 0], tags[tags >= 0]
    found = Tagging().metrics({"probabilities": torch.from_numpy(scores)}, {"tags": torch.from_numpy(tags)})
    each = [(true == index, known[:, index]) for index in range(4)]
    called = torch.from_numpy(known).argmax(1).numpy()
    assert found["accuracy"] == pytest.approx((called == true).mean())
    assert found["macro_f1"] == pytest.approx(f1_score(true, called, average="macro"))
    assert found["average_precision"] == pytest.approx(np.mean([average_precision_score(*pair) for pair in each]))
    assert found["auroc"] == pytest.approx(np.mean([roc_auc_score(*pair) for pair in each]))


def test_a_ranking_of_one_class_alone_has_no_score() -> None:
    scores, labels = torch.rand(5, 2), torch.zeros(5, dtype=torch.int64)
    assert np.isnan(auroc(scores, labels)) and np.isnan(average_precision(scores, labels))


@pytest.mark.parametrize("modality", ["text", "protein"])
def test_a_probe_is_answered_for_each_part_and_the_same_alone_or_with_others(tmp_path: Path, modality: str) -> None:
    write, settings = {
        "text": (datasets.text_dataset, datasets.TEXT),
        "protein": (datasets.protein_dataset, datasets.PROTEIN),
    }[modality]
    data = write(tmp_path / "data")
    spec = {
        "type": "finetune", "dataset": "ds_toy", "task": {"name": "tagging", "mode": "linear_probe", "layers": "all"},
        "modality": settings, "backbone": datasets.TINY_TEXT, "seed": 1,
    }  # fmt: skip
    datasets.order(tmp_path / "run", spec, {"ds_toy": data})
    verdict = run(tmp_path / "run", FileContext(tmp_path / "run"))
    assert verdict["metrics"]["final_train/accuracy"] > 0.9
    model = load(tmp_path / "run" / "artifact")
    assert model.classes == {"text": ["long", "short"], "protein": ["G", "X"]}[modality]
    if modality == "protein":
        answers = model.predict(["GPSAELKGP", "LK-MQGA*"])
        assert [len(answer["tags"]) for answer in answers] == [9, 6]
        assert answers[0]["tags"][:3] == "GGG"
        long = model.predict(["AE" * 25])[0]
        assert len(long["tags"]) == settings.max_length
        assert len(long["probabilities"]["G"]) == settings.max_length
    else:
        answers = model.predict(["bread  harbour salt", "oven anchor", [7, 9, 11]])
        assert [len(answer["tags"]) for answer in answers] == [3, 2, 3]
        assert answers[0]["tags"] == ["long", "long", "short"]
    alone = model.predict([{"text": "oven anchor", "protein": "LK-MQGA*"}[modality]])[0]
    assert alone["tags"] == answers[1]["tags"]
    for name in model.classes:
        assert alone["probabilities"][name] == pytest.approx(answers[1]["probabilities"][name], abs=1e-5)


def test_the_confusion_matrix_is_of_tagged_tokens(tmp_path: Path) -> None:
    data = datasets.protein_dataset(tmp_path / "data", rows=30)
    spec = {
        "type": "finetune", "dataset": "ds_toy", "task": {"name": "tagging", "mode": "linear_probe"},
        "modality": datasets.PROTEIN, "backbone": datasets.TINY_TEXT,
    }  # fmt: skip
    datasets.order(tmp_path / "run", spec, {"ds_toy": data})
    assert run(tmp_path / "run", FileContext(tmp_path / "run"))["status"] == "succeeded"
    told = json.loads((tmp_path / "run" / "samples" / "confusion.json").read_text())
    counts = datasets.facts(data).targets["tags"].class_counts
    assert told["classes"] == ["G", "X"]
    # Chains are cut at 32 residues, so there are at most as many as the dataset has.
    assert all(0 < sum(row) <= counts[name] for name, row in zip(told["classes"], told["counts"], strict=True))


def test_a_dataset_without_tags_is_refused_before_it_runs() -> None:
    spec = JOB_SPEC.validate_python({"type": "finetune", "dataset": "ds_toy", "task": {"name": "tagging"}})
    assert isinstance(spec, FinetuneSpec)
    facts = DatasetFacts(id="ds_toy", modality="protein", rows=50, labelled=50, classes=["a", "b"])
    with pytest.raises(SpecError) as caught:
        resolve(spec, facts)
    assert (caught.value.code, caught.value.param) == ("no_targets", "dataset")
    assert 'columns={"tags": "..."}' in caught.value.message
