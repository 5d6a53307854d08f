"""Models of bytes and of characters: pretrained, served, exported, imported again and fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_core import inference
from ssl_core.data import tokenizer
from ssl_core.export import open_base
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import ModelFacts
from tests.ssl_core import datasets

transformers = pytest.importorskip("transformers")

from tests.ssl_core.interop.folders import exported, imported, zipped  # noqa: E402

TEXTS = ["the oven  bakes bread", "Größe\n\nand 日本\r\n\tin two lines "]
BACKBONE: dict[str, Any] = {
    "name": "custom", "family": "transformer", "width": 32, "depth": 1, "heads": 2, "positions": "learned",
    "max_positions": 24, "attention": "causal", "embedding_norm": False, "mlp": "gelu_tanh",
}  # fmt: skip


def finished(workdir: Path, data: Path, spec: dict[str, Any], **fields: Any) -> Path:
    """The artifact of a run of three steps."""
    torch.set_num_threads(1)
    shared = {"dataset": "ds_toy", "batch_size": 8, "budget": {"steps": 3}}
    datasets.order(workdir, shared | spec, {"ds_toy": data}, **fields)
    assert run(workdir, FileContext(workdir))["status"] == "succeeded"
    return workdir / "artifact"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.text_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module", params=["bytes", "characters"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    modality = datasets.TEXT.model_copy(update={"tokenizer": request.param})
    spec = {"type": "pretrain", "objective": {"name": "next_token"}, "modality": modality, "backbone": BACKBONE}
    return finished(tmp_path_factory.mktemp("run") / "run", data, spec)


def test_it_serves_texts_and_counts_their_characters_or_bytes(model: Path) -> None:
    loaded = inference.load(model)
    vectors = loaded.embed(["tide", "the deck", "the deck"])
    assert vectors.shape == (3, 32) and np.isfinite(vectors).all()
    assert (vectors[1] == vectors[2]).all() and (vectors[0] != vectors[1]).any()
    assert loaded.token_counts(["tide", "the deck"]) == [4, 8]


def test_its_export_loads_elsewhere_with_the_same_tokens(model: Path, tmp_path: Path) -> None:
    folder, verdict = exported(model, tmp_path / "run", "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), tokenizer.load(model / "tokenizer.json")
    assert theirs(TEXTS)["input_ids"] == tokenizer.encode(ours, TEXTS)
    for ids in tokenizer.encode(ours, TEXTS):
        assert theirs.decode(ids) == ours.decode(ids, skip_special_tokens=False)
    assert (theirs.pad_token_id, theirs.mask_token_id) == (tokenizer.PAD, tokenizer.MASK)


def test_its_export_is_imported_again_with_the_same_vectors(model: Path, tmp_path: Path) -> None:
    folder, _ = exported(model, tmp_path / "run", "hf")
    imported(zipped(folder, tmp_path / "again.zip"), tmp_path / "again")
    again = inference.load(tmp_path / "again" / "artifact")
    np.testing.assert_allclose(again.embed(TEXTS), inference.load(model).embed(TEXTS), atol=1e-6)


def test_a_classifier_is_learned_on_it_with_its_own_tokenizer(model: Path, data: Path, tmp_path: Path) -> None:
    known = open_base(model)
    base = ModelFacts(id="mdl_b", modality=known.modality, backbone=known.backbone)
    spec = {"type": "finetune", "task": {"name": "classification"}, "model": "mdl_b"}
    made = finished(tmp_path / "run", data, spec, base=base, model=str(model))
    assert (made / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert inference.load(made).predict(["bread and salt"])[0]["label"] in datasets.TOPICS
