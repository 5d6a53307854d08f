"""Numbers: from an upload to a solved ridge, scores and an answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.encoders import build_encoder
from ssl_core.errors import SpecError
from ssl_core.evaluation.ranking import spearman
from ssl_core.inference import load
from ssl_core.places import vectors_by_place
from ssl_core.recipes import resolve
from ssl_core.ridge import Regressor, choose, solve
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import JOB_SPEC, DatasetFacts, FinetuneSpec
from ssl_core.tasks.regression import Regression
from tests.ssl_core import datasets
from tests.ssl_core.uploads import take


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("file", ["a.jsonl", "a.csv"])
def test_a_label_column_holds_numbers_where_the_upload_says_so(tmp_path: Path, file: str) -> None:
    data = {
        "a.jsonl": lines({"sequence": "MKV", "label": 1.5}, {"sequence": "MKA", "label": None}, {"sequence": "MKL"}),
        "a.csv": b"sequence,label\nMKV,1.5\nMKA,\nMKL,\n",
    }[file]
    made = take(tmp_path, file, data, columns={"number": "label"})
    assert [(row["number"], row["label"]) for row in made.rows] == [(1.5, None), (None, None), (None, None)]
    assert made.summary["classes"] == []
    numbers = {"min": 1.5, "max": 1.5, "mean": 1.5, "deviation": 0.0}
    assert made.summary["targets"] == {"number": {"rows": 1, "numbers": numbers}}


def test_a_column_called_number_is_one(tmp_path: Path) -> None:
    made = take(tmp_path, "a.csv", b"text,number,label\nso,1e-3,a\nmuch,-4,b\n")
    assert [(row["number"], row["label"]) for row in made.rows] == [(0.001, "a"), (-4.0, "b")]


@pytest.mark.parametrize("value", ["much", "nan", "inf", True, [1], 1e31, "1" * 400])
def test_what_is_no_number_makes_its_row_bad(tmp_path: Path, value: Any) -> None:
    good = {"text": "so", "number": 1}
    made = take(tmp_path, "a.jsonl", lines(good, {"text": "much", "number": value}, good))
    assert made.errors == [("a.jsonl", 2, "invalid_number")]


def test_the_profile_measures_numbers_in_one_pass(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(1e6, 3, 200)
    made = take(tmp_path, "a.jsonl", lines(*({"text": "so", "number": value} for value in values)))
    found = made.summary["targets"]["number"]["numbers"]
    assert found["mean"] == pytest.approx(values.mean())
    assert found["deviation"] == pytest.approx(values.std())


@pytest.mark.parametrize("shape", [(60, 8), (12, 40)])
def test_the_solution_is_scikit_learns(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    y = torch.randn(shape[0], generator=generator, dtype=torch.float64) + 3
    weight, bias = solve(x, y, 2.5)
    theirs = Ridge(alpha=2.5).fit(x.numpy(), y.numpy())
    assert np.allclose(weight.numpy(), theirs.coef_)
    assert float(bias) == pytest.approx(theirs.intercept_)


def test_noise_asks_for_a_larger_penalty_than_a_plain_law() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(50, 30, generator=generator)
    law, noise = x @ torch.randn(30, generator=generator), torch.randn(50, generator=generator)
    assert choose(x, law) < choose(x, noise)


def test_a_regressor_predicts_in_the_datasets_own_numbers() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(200, 6, generator=generator) * 5 + 2
    y = 1000 + 40 * (x @ torch.randn(6, generator=generator)).double()
    head = Regressor(6, 0.0)
    head.centre_on(y)
    head.fit(x, y, 1e-3)
    assert torch.allclose(head.own(head(x)).double(), y, rtol=1e-4)


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys(ties: bool) -> None:
    random = np.random.default_rng(4)
    a, b = random.random(80), random.random(80)
    a, b = (np.round(a, 1), np.round(b + a, 1)) if ties else (a, b + a)
    assert spearman(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(spearmanr(a, b).statistic)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    truth = {"number": torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)}
    found = Regression().metrics({"number": torch.full((3,), 2.0)}, truth)
    assert found == {"mse": pytest.approx(5 / 3), "spearman": 0.0}


def test_a_probe_learns_numbers_and_answers_with_them(tmp_path: Path) -> None:
    data = datasets.protein_dataset(tmp_path / "data")
    task = {"name": "regression", "mode": "linear_probe"}
    spec = {"type": "finetune", "dataset": "ds_toy", "task": task, "modality": datasets.PROTEIN}
    datasets.order(tmp_path / "run", {**spec, "backbone": datasets.TINY_TEXT}, {"ds_toy": data})
    verdict = run(tmp_path / "run", FileContext(tmp_path / "run"))
    assert verdict["metrics"]["final_train/spearman"] > 0.8
    model = load(tmp_path / "run" / "artifact")
    strand, helix = (answer["number"] for answer in model.predict(["VIYFTWVIYFTWVIYFTW", "AELKMQRAELKMQRAELKMQR"]))
    assert math.isfinite(strand) and helix < 2.5 < strand


def test_a_probe_of_places_reads_one_residue_that_the_mean_drowns(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    chains = ["".join(draw.choice(list("AGLWPDKS"), 20)) for _ in range(240)]
    rows = [{"sequence": chain, "number": "AGLWPDKS".index(chain[7])} for chain in chains]
    data = take(tmp_path, "a.jsonl", lines(*rows)).folder
    scores = {}
    for places in (0, 20):
        task = {"name": "regression", "mode": "linear_probe", "places": places}
        spec = {"type": "finetune", "dataset": "ds_toy", "task": task, "modality": datasets.PROTEIN}
        spec |= {"backbone": datasets.TINY_TEXT, "validation_fraction": 0.3}
        folder = tmp_path / str(places)
        datasets.order(folder, spec, {"ds_toy": data})
        verdict = run(folder, FileContext(folder))
        scores[places] = verdict["metrics"]["final/spearman"]
    assert scores[20] > 0.9 > 0.7 > scores[0]
    model = load(tmp_path / "20" / "artifact")
    least, most = (answer["number"] for answer in model.predict(["L" * 7 + "A" + "L" * 12, "L" * 7 + "S" + "L" * 12]))
    assert most - least > 4


def test_places_are_refused_for_pictures() -> None:
    with pytest.raises(SpecError, match="places are of text and proteins") as caught:
        Regression(places=4).check(BACKBONES["image-resnet18"])
    assert caught.value.param == "task.places"


def test_rows_shorter_and_longer_than_the_places_are_filled_up_and_cut() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate(datasets.TINY_TEXT), {"vocab_size": 12}).eval()
    ids, segments = torch.randint(3, 12, (2, 5)), torch.tensor([[0, 0, 0, -1, -1], [0, 0, 0, 0, 0]])
    view = Tokens(ids, segments, torch.arange(5).expand(2, 5))
    hidden = encoder.encode(view)
    wide, narrow = vectors_by_place(encoder, view, 8), vectors_by_place(encoder, view, 2)
    assert torch.equal(narrow, hidden[:, :2].flatten(1))
    assert torch.equal(wide[1].view(8, -1)[:5], hidden[1]) and not wide[1].view(8, -1)[5:].any()
    assert not wide[0].view(8, -1)[3:].any()
    assert torch.equal(vectors_by_place(encoder, view, 0), encoder(view))


def test_a_dataset_without_numbers_is_refused_before_it_runs() -> None:
    spec = JOB_SPEC.validate_python({"type": "finetune", "dataset": "ds_toy", "task": {"name": "regression"}})
    assert isinstance(spec, FinetuneSpec)
    facts = DatasetFacts(id="ds_toy", modality="protein", rows=50, labelled=50, classes=["0.5", "1.25"])
    with pytest.raises(SpecError, match=r'columns=\{"number": "..."\}') as caught:
        resolve(spec, facts)
    assert (caught.value.code, caught.value.param) == ("no_targets", "dataset")
