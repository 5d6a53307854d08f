"""Classifiers in transformers' own classes: the same answers as ours, whatever stands between in their heads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_core.encoders import Encoder
from ssl_core.errors import SpecError
from ssl_core.interop.base import Shape

transformers = pytest.importorskip("transformers")

from ssl_core.heads import classifier_of  # noqa: E402
from ssl_core.inference import load  # noqa: E402
from ssl_core.interop import classifiers, probes  # noqa: E402
from tests.ssl_core.interop.folders import exported, model_folder  # noqa: E402
from tests.ssl_core.interop.test_families import imported, saved  # noqa: E402

CLASSES = 5
# Family, how its encoder pools, the class that answers so, and the Auto class that finds it.
CASES = [
    ("bert", "cls", "BertForSequenceClassification", "AutoModelForSequenceClassification"),
    ("roberta", "cls", "RobertaForSequenceClassification", "AutoModelForSequenceClassification"),
    ("electra", "cls", "ElectraForSequenceClassification", "AutoModelForSequenceClassification"),
    ("modernbert", "mean", "ModernBertForSequenceClassification", "AutoModelForSequenceClassification"),
    ("modernbert", "cls", "ModernBertForSequenceClassification", "AutoModelForSequenceClassification"),
    ("gpt2", "last", "GPT2ForSequenceClassification", "AutoModelForSequenceClassification"),
    ("esm", "cls", "EsmForSequenceClassification", "AutoModelForSequenceClassification"),
    ("vit", "cls", "ViTForImageClassification", "AutoModelForImageClassification"),
    ("vit", "mean", "Dinov2ForImageClassification", "AutoModelForImageClassification"),
    ("vit_mae", "mean", "Dinov2ForImageClassification", "AutoModelForImageClassification"),
    ("dinov2", "cls", "Dinov2ForImageClassification", "AutoModelForImageClassification"),
    ("dinov2", "mean", "Dinov2ForImageClassification", "AutoModelForImageClassification"),
    ("ijepa", "mean", "IJepaForImageClassification", "AutoModelForImageClassification"),
    ("resnet", "mean", "ResNetForImageClassification", "AutoModelForImageClassification"),
    ("wav2vec2", "mean", "Wav2Vec2ForSequenceClassification", "AutoModelForAudioClassification"),
]
UNSAID = [
    ("bert", "mean", "it classifies by pooling cls, and this encoder pools by mean"),
    ("modernbert", "last", "it pools by mean or cls"),
    ("llama", "last", "LlamaModel"),
    ("ast", "cls", "ASTModel"),
    ("siglip_vision_model", "attention", "SiglipVisionModel"),
]


def made(name: str, pooling: str, tmp_path: Path) -> tuple[Shape, Encoder]:
    """The family's toy as one of our encoders, which pools so."""
    from ssl_core.encoders import build_encoder

    saved(name, tmp_path / "public")
    shape, encoder, _ = imported(tmp_path / "public")
    if shape.backbone.pooling == pooling:
        return shape, encoder
    shape = replace(shape, backbone=shape.backbone.model_copy(update={"pooling": pooling}))
    again = build_encoder(shape.backbone, dict(shape.facts))
    again.load_state_dict(encoder.state_dict())
    return shape, again


@pytest.mark.parametrize(("name", "pooling", "model_class", "auto"), CASES)
def test_a_classifier_answers_the_same_by_an_auto_class(
    name: str, pooling: str, model_class: str, auto: str, tmp_path: Path
) -> None:
    model_folder(tmp_path / "model", *made(name, pooling, tmp_path), CLASSES, name)
    folder, verdict = exported(tmp_path / "model", tmp_path, "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    model = load(tmp_path / "model")
    graph = probes.graph_of(model.nets.encoder, classifier_of(model.nets))
    inputs = probes.example(graph, longer=3)
    theirs = getattr(transformers, auto).from_pretrained(folder).eval()
    assert type(theirs).__name__ == model_class
    assert theirs.config.id2label == dict(enumerate(model.classes))
    with torch.no_grad():
        found = theirs(**dict(zip(graph.inputs, inputs, strict=True))).logits
        expected = graph(*inputs)[1]
    assert expected.abs().max() > 0.5
    assert (found - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(("name", "pooling", "why"), UNSAID)
def test_a_head_that_theirs_cannot_compute_is_refused_with_the_reason(
    name: str, pooling: str, why: str, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "model", *made(name, pooling, tmp_path), CLASSES)
    with pytest.raises(SpecError) as caught:
        exported(folder, tmp_path, "hf")
    assert caught.value.code == "export_unsupported" and why in caught.value.message
    assert "native or onnx" in caught.value.message and "the encoder" in caught.value.message


@pytest.mark.parametrize("name", ["electra", "modernbert"])
def test_a_head_too_narrow_for_the_classes_is_refused(name: str, tmp_path: Path) -> None:
    pooling = "mean" if name == "modernbert" else "cls"
    folder = model_folder(tmp_path / "model", *made(name, pooling, tmp_path), 32)
    with pytest.raises(SpecError, match="for that many classes"):
        exported(folder, tmp_path, "hf")


@pytest.mark.parametrize(("part", "why"), [("final_norm.bias", "no bias"), ("pad_id", "padding")])
def test_a_gpt_that_has_nothing_to_carry_the_bias_or_no_padding_is_refused(part: str, why: str, tmp_path: Path) -> None:
    shape, encoder = made("gpt2", "last", tmp_path)
    if part == "pad_id":
        shape = replace(shape, facts={name: value for name, value in shape.facts.items() if name != part})
    else:
        torch.nn.init.zeros_(encoder.get_parameter(part))
    with pytest.raises(SpecError, match=why):
        exported(model_folder(tmp_path / "model", shape, encoder, CLASSES), tmp_path, "hf")


@pytest.mark.parametrize("name", ["tanh", "gelu", "norm"])
def test_each_head_is_a_linear_layer_for_vectors_small_and_large(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(CLASSES, 16, generator=generator)
    for size in (1e-3, 1.0, 100.0):
        vectors = size * torch.randn(8, 16, generator=generator)
        wanted = vectors.double() @ weight.double().T
        found = _through(name, weight, vectors)
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def _through(name: str, weight: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    import torch.nn.functional as F

    bias = torch.zeros(CLASSES)
    if name == "norm":
        first, last = classifiers.before_norm(weight, 1e-5, "X")
        return F.layer_norm(vectors @ first.T, (16,), eps=1e-5) @ last.T
    build, bend = (classifiers.after_tanh, torch.tanh) if name == "tanh" else (classifiers.after_gelu, F.gelu)
    shape: Any = _Pooled()
    head = build("X", "", "one", "two")(shape, {}, weight, bias).tensors
    hidden = bend(F.linear(vectors, head["one.weight"], head["one.bias"]))
    return F.linear(hidden, head["two.weight"], head["two.bias"])


class _Pooled:
    """As much of a shape as a head asks for."""

    class backbone:
        pooling = "cls"


def test_the_card_tells_of_scales_that_half_precision_does_not_hold(tmp_path: Path) -> None:
    folder, _ = exported(model_folder(tmp_path / "model", *made("bert", "cls", tmp_path), CLASSES), tmp_path, "hf")
    assert classifiers.SCALED in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
