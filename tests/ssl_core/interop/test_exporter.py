"""Exports: what users download loads elsewhere and computes the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core.errors import SpecError
from ssl_core.heads import Classifier
from ssl_core.inference import load
from tests.model_folders import image_model, text_model

pytest.importorskip("transformers")

from ssl_core.answer_heads import folded
from ssl_core.interop.hf import FAMILIES
from tests.ssl_core.interop.folders import bert_folder, exported, imported, model_folder, zipped
from tests.ssl_core.interop.test_families import imported as imported_encoder
from tests.ssl_core.interop.test_families import saved

LOADED = """
import sys, numpy, torch
from transformers import AutoModel, AutoTokenizer
folder, out = sys.argv[1:]
batch = AutoTokenizer.from_pretrained(folder)(["word1 word2", "word3"], padding=True, return_tensors="pt")
batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
with torch.no_grad():
    hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
mask = batch["attention_mask"].unsqueeze(-1)
numpy.save(out, ((hidden * mask).sum(1) / mask.sum(1)).numpy())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    imported(zipped(bert_folder(folder / "bert"), folder / "bert.zip"), folder / "run")
    return folder / "run" / "artifact"


def test_an_exported_folder_loads_in_another_process_by_auto_classes_and_agrees(model: Path, tmp_path: Path) -> None:
    folder, verdict = exported(model, tmp_path / "run", "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    command = [sys.executable, "-c", LOADED, str(folder), str(tmp_path / "vectors.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    mine = load(model).embed(["word1 word2", "word3"])
    assert np.abs(np.load(tmp_path / "vectors.npy") - mine).max() <= 1e-4


def test_the_card_tells_the_measured_difference_and_no_file_is_a_pickle(model: Path, tmp_path: Path) -> None:
    folder, _ = exported(model, tmp_path / "run", "hf")
    assert "greatest absolute difference" in (folder / "README.md").read_text()
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertModel"]


def test_an_export_is_imported_again(model: Path, tmp_path: Path) -> None:
    folder, _ = exported(model, tmp_path / "run", "hf")
    imported(zipped(folder, tmp_path / "again.zip"), tmp_path / "again")
    first, second = load(model).nets.state_dict(), load(tmp_path / "again" / "artifact").nets.state_dict()
    assert all(torch.equal(value.view(torch.int32), second[name].view(torch.int32)) for name, value in first.items())


@pytest.mark.parametrize("kind", ["encoder", "topics", "digits"])
def test_an_onnx_file_runs_in_onnxruntime_and_agrees(model: Path, tmp_path: Path, kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    chosen = model
    if kind != "encoder":
        chosen = (text_model if kind == "topics" else image_model)(tmp_path / "made", task=True)
    folder, verdict = exported(chosen, tmp_path / "run", "onnx")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    if kind == "encoder":
        ids = np.array([[2, 6, 7, 3]], dtype=np.int64)
        pooled = session.run(["pooler_output"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        assert np.abs(pooled - load(model).embed(["word1 word2"])).max() <= 1e-4
    else:
        assert session.get_outputs()[1].name == "logits"


@pytest.mark.parametrize("name", FAMILIES)
def test_an_encoder_of_every_family_is_exported_and_computes_the_same(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path / "public")
    shape, encoder, _ = imported_encoder(tmp_path / "public")
    chosen = model_folder(tmp_path / "model", shape, encoder, model_type=name)
    folder, verdict = exported(chosen, tmp_path, "hf")
    difference = verdict["metrics"]["export/max_abs_difference"]
    assert difference <= 2e-4 if name == "resnet" else difference <= 1e-4  # its vectors are of size 20
    assert f"{difference:.3g} (greatest absolute difference" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["vit", "ast", "siglip_vision_model", "wav2vec2", "esm", "resnet", "clip", "siglip"])
def test_a_file_for_onnxruntime_takes_other_batches_and_lengths_and_agrees(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    saved(name, tmp_path / "public")
    shape, encoder, _ = imported_encoder(tmp_path / "public")
    _, verdict = exported(model_folder(tmp_path / "model", shape, encoder), tmp_path, "onnx")
    assert verdict["metrics"]["export/max_abs_difference"] <= (6e-4 if name == "resnet" else 1e-4)  # of up to 60


def test_a_classifier_of_topics_made_from_scratch_is_exported_for_transformers(tmp_path: Path) -> None:
    folder, _ = exported(text_model(tmp_path / "made", task=True), tmp_path / "run", "hf")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["ModernBertForSequenceClassification"]


def test_what_no_public_class_computes_is_refused_with_the_formats_it_has(tmp_path: Path) -> None:
    chosen = image_model(tmp_path / "made", task=True)
    with pytest.raises(SpecError) as caught:
        exported(chosen, tmp_path / "run", "hf")
    assert (caught.value.code, caught.value.param) == ("export_unsupported", "format")
    assert "native or onnx" in caught.value.message


def test_the_standardisation_folds_into_the_linear_layer() -> None:
    torch.manual_seed(0)
    head = Classifier(7, 3, 0.0)
    head.standardise(3 * torch.randn(40, 7) + 5)
    head.assign(torch.randn(3, 7), torch.randn(3))
    weight, bias = folded(head)
    vectors = torch.randn(5, 7)
    assert torch.allclose(vectors @ weight.T + bias, head(vectors), atol=1e-5)
