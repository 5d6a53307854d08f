"""Several labels a row: from an upload to solved regressions, scores and an answer."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ssl_core.data import ragged, shards
from ssl_core.errors import DataError
from ssl_core.inference import load
from ssl_core.modalities import MODALITIES
from ssl_core.multilabel import each_class_loss, positive_weights, solve
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.targets.labels import Labels
from ssl_core.tasks.multilabel import Multilabel
from tests.ssl_core import datasets
from tests.ssl_core.uploads import take


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(value: Any) -> Any:
    return Labels.read({"labels": value}, {"text": b"so"}, MODALITIES["text"])


def test_lists_cells_and_json_in_cells_say_the_same() -> None:
    assert read(["b", "a", "b"]) == read("b|a | b") == read('["b", "a"]') == ["a", "b"]
    assert read(7) == read([7]) == ["7"]


def test_of_no_class_is_not_the_same_as_not_known() -> None:
    assert read([]) == read("[]") == []
    assert read(None) is None
    assert read("") is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", 1.5], "label 2 is a float; allowed: strings and whole numbers"),
        ([True], "label 1 is a bool"),
        ("a||b", "label 2 must have 1 to 200 characters"),
        (["x" * 201], "label 1 must have 1 to 200 characters"),
        ({"a": 1}, "the labels are a dict; needed: a list of names"),
        ("[a", "is not JSON"),
    ],
)
def test_what_are_no_labels_is_named(value: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(value)
    assert caught.value.code == "invalid_labels"
    assert words in caught.value.message


def test_an_upload_counts_labels_and_names_the_row_of_a_bad_one(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a", "labels": ["x", "y"]},
        {"text": "b", "labels": []},
        {"text": "c", "labels": [None]},
        {"text": "d", "labels": None},
        {"text": "e", "labels": ["y"]},
    ]
    made = take(tmp_path, "a.jsonl", lines(*rows))
    assert made.errors == [("a.jsonl", 3, "invalid_labels")]
    assert [row["labels"] for row in made.rows] == [["x", "y"], [], None, ["y"]]
    assert made.summary["targets"]["labels"]["class_counts"] == {"x": 1, "y": 2}
    assert made.summary["targets"]["labels"]["rows"] == 3


def test_labels_of_a_protein_are_tags_unless_the_upload_says_so(tmp_path: Path) -> None:
    data = lines({"sequence": "MKV", "labels": "HHE", "families": "a|b"}, {"sequence": "MKA", "labels": "HEE"})
    made = take(tmp_path, "a.jsonl", data, columns={"labels": "families"})
    assert [row["labels"] for row in made.rows] == [["a", "b"], None]
    assert [row["tags"] for row in made.rows] == [list("HHE"), list("HEE")]


def opened(folder: Path, rows: list[list[int] | None], mine: list[str], classes: list[str] | None = None) -> Any:
    """Targets as written: class numbers of each row, None = not known."""
    with shards.ArrayWriter(folder / "several.known.bin", "uint8") as known:
        known.append(np.array([row is not None for row in rows], dtype=np.uint8))
    ragged.write(folder, "several", "int16", (np.array(row or [], dtype=np.int16) for row in rows))
    (folder / "several.json").write_text(json.dumps({"rows": len(rows), "classes": mine}))
    return Labels.open(folder, classes)


def test_a_held_out_share_is_drawn_by_the_rarest_label(tmp_path: Path) -> None:
    found = opened(tmp_path, [[0, 1], [0], [], None, [0, 2], [2]], ["a", "b", "c"])
    assert found.groups().tolist() == [1, 0, 3, -1, 2, 2]
    assert found.read(np.array([0, 2, 4]))["labels"].tolist() == [[True, True, False], [False] * 3, [True, False, True]]


def test_labels_that_a_model_does_not_know_are_left_out(tmp_path: Path) -> None:
    found = opened(tmp_path, [[0, 1], [1], []], ["a", "b"], ["z", "a"])
    assert found.groups().tolist() == [1, -1, 2]
    assert found.read(np.arange(3))["labels"].tolist() == [[False, True], [False, False], [False, False]]


def drawn(rows: int = 80, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return x, x @ torch.randn(6, classes, generator=generator, dtype=torch.float64) + noise > 0.8


def test_the_solution_of_each_class_is_scikit_learns() -> None:
    x, truth = drawn()
    weights = positive_weights(truth).double()
    weight, bias = solve(x, truth, weights, 2.0)
    for at in range(3):
        theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000, class_weight={0: 1.0, 1: float(weights[at])})
        theirs.fit(x.numpy(), truth[:, at].numpy())
        assert np.allclose(weight[at].numpy(), theirs.coef_[0], atol=1e-5)
        assert float(bias[at]) == pytest.approx(theirs.intercept_[0], abs=1e-5)


def test_the_loss_is_the_formula_and_its_gradient() -> None:
    x, truth = drawn()
    logits = (2 * x[:, :3]).requires_grad_()
    weights = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    each_class_loss(logits, truth, weights, 0.2).backward()  # type: ignore[no-untyped-call]
    wanted = truth.double() * 0.8 + 0.1
    p = torch.sigmoid(logits.detach())
    assert logits.grad is not None
    # d/dx of -(w t log p + (1 - t) log(1 - p)), over all places.
    assert torch.allclose(logits.grad, ((1 - wanted) * p - weights * wanted * (1 - p)) / truth.numel())


def test_a_class_with_all_or_no_samples_weighs_one() -> None:
    truth = torch.tensor([[True, False, True], [True, False, False], [True, False, False]])
    assert positive_weights(truth).tolist() == [1.0, 1.0, 2.0]


def test_scores_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(3)
    # Coarse, so that some are equal; the last class has no sample.
    scores = (torch.rand(60, 5, generator=generator) * 20).round() / 20
    truth = torch.rand(60, 5, generator=generator) < torch.tensor([0.5, 0.2, 0.1, 0.4, 0.0])
    found = Multilabel().metrics({"probabilities": scores}, {"labels": truth})
    y, s = truth.numpy(), scores.numpy()
    given = s >= 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["macro_f1"] == pytest.approx(f1_score(y, given, average="macro", zero_division=np.nan))
    assert found["micro_f1"] == pytest.approx(f1_score(y, given, average="micro"))
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(y[:, :4], s[:, :4]))
    assert found["macro_auroc"] == pytest.approx(roc_auc_score(y[:, :4], s[:, :4]))


def test_scores_of_a_split_without_any_label_are_numbers() -> None:
    nothing = torch.zeros(4, 2)
    found = Multilabel().metrics({"probabilities": nothing}, {"labels": nothing.bool()})
    assert all(math.isfinite(value) for value in found.values())


def test_the_least_likely_yes_or_no_is_a_samples_likelihood() -> None:
    outputs = {"probabilities": torch.tensor([[0.9, 0.2], [0.9, 0.2]])}
    truth = {"labels": torch.tensor([[True, False], [False, False]])}
    assert Multilabel().likelihood(outputs, truth).tolist() == pytest.approx([0.8, 0.1])


@pytest.mark.parametrize("mode", ["full", "linear_probe"])
def test_a_run_learns_which_labels_each_text_has(tmp_path: Path, mode: str) -> None:
    data = {"ds_toy": datasets.text_dataset(tmp_path / "data")}
    task = {"name": "multilabel", "mode": mode}
    shape: dict[str, Any] = {"modality": datasets.TEXT, "backbone": datasets.TINY_TEXT}
    # A probe that solves all at once holds nothing out unless it is told to.
    shape["validation_fraction"] = 0.2
    spec = {"type": "finetune", "task": task, "dataset": "ds_toy", "budget": {"steps": 20}, **shape}
    datasets.order(tmp_path / "run", spec, data)
    verdict = run(tmp_path / "run", FileContext(tmp_path / "run"))
    assert verdict["metrics"]["final/mean_average_precision"] > 0.9
    model = load(tmp_path / "run" / "artifact")
    answers = model.predict(["bread oven salt flour butter sugar bake", "wind harbour mast rope tide anchor keel"])
    assert [answer["labels"] for answer in answers] == [["cooking", "early"], []]
    assert set(answers[0]["probabilities"]) == {"cooking", "early", "gardens"}
