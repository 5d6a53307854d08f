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

from ssl_core.inference import load  # noqa: E402
from ssl_core.interop import classifiers, probes  # noqa: E402
from ssl_core.tasks.base import Task  # noqa: E402
from ssl_core.tasks.classification import Classification  # noqa: E402
from ssl_core.tasks.multilabel import Multilabel  # noqa: E402
from ssl_core.tasks.regression import Regression  # noqa: E402
from ssl_core.tasks.tagging import Tagging  # noqa: E402
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
    graph = probes.graph_of(model.nets.encoder, probes.head_of(model))
    inputs = probes.example(graph, longer=3)
    theirs = getattr(transformers, auto).from_pretrained(folder).eval()
    assert type(theirs).__name__ == model_class
    assert theirs.config.id2label == dict(enumerate(model.classes))
    with torch.no_grad():
        found = theirs(**dict(zip(graph.inputs, inputs, strict=True))).logits
        expected = graph(*inputs)[1]
    assert expected.abs().max() > 0.5
    assert (found - expected).abs().max() <= 1e-4


# Task, family, how its encoder pools, the class that answers so, and the Auto class that finds it.
OTHERS = [
    (Multilabel(), "bert", "cls", "BertForSequenceClassification", "AutoModelForSequenceClassification"),
    (Multilabel(), "vit", "cls", "ViTForImageClassification", "AutoModelForImageClassification"),
    (Regression(), "bert", "cls", "BertForSequenceClassification", "AutoModelForSequenceClassification"),
    (Regression(), "electra", "cls", "ElectraForSequenceClassification", "AutoModelForSequenceClassification"),
    (Regression(), "modernbert", "mean", "ModernBertForSequenceClassification", "AutoModelForSequenceClassification"),
    (Regression(), "gpt2", "last", "GPT2ForSequenceClassification", "AutoModelForSequenceClassification"),
    (Regression(), "esm", "cls", "EsmForSequenceClassification", "AutoModelForSequenceClassification"),
    (Tagging(), "bert", "cls", "BertForTokenClassification", "AutoModelForTokenClassification"),
    (Tagging(), "roberta", "mean", "RobertaForTokenClassification", "AutoModelForTokenClassification"),
    (Tagging(), "electra", "cls", "ElectraForTokenClassification", "AutoModelForTokenClassification"),
    (Tagging(), "modernbert", "mean", "ModernBertForTokenClassification", "AutoModelForTokenClassification"),
    (Tagging(), "modernbert", "last", "ModernBertForTokenClassification", "AutoModelForTokenClassification"),
    (Tagging(), "gpt2", "last", "GPT2ForTokenClassification", "AutoModelForTokenClassification"),
    (Tagging(), "llama", "last", "LlamaForTokenClassification", "AutoModelForTokenClassification"),
    (Tagging(), "esm", "mean", "EsmForTokenClassification", "AutoModelForTokenClassification"),
]
PROBLEMS = {"multilabel": "multi_label_classification", "regression": "regression", "tagging": None}


@pytest.mark.parametrize(("task", "name", "pooling", "model_class", "auto"), OTHERS, ids=str)
def test_other_tasks_answer_the_same_by_an_auto_class(
    task: Task, name: str, pooling: str, model_class: str, auto: str, tmp_path: Path
) -> None:
    classes = 0 if task.name == "regression" else CLASSES
    model_folder(tmp_path / "model", *made(name, pooling, tmp_path), classes, name, task)
    folder, verdict = exported(tmp_path / "model", tmp_path, "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    model = load(tmp_path / "model")
    theirs = getattr(transformers, auto).from_pretrained(folder).eval()
    assert type(theirs).__name__ == model_class
    assert theirs.config.problem_type == PROBLEMS[task.name]
    assert list(theirs.config.id2label.values()) == (model.classes or ["number"])
    graph = probes.graph_of(model.nets.encoder, probes.head_of(model))
    inputs = probes.example(graph, longer=3)
    real = torch.ones(len(inputs[0]), 1, dtype=torch.bool)
    if task.name == "tagging":
        real = inputs[1].bool()
    with torch.no_grad():
        found = theirs(**dict(zip(graph.inputs, inputs, strict=True))).logits
        expected = graph(*inputs)[1]
    assert found.shape == expected.shape
    shown = real[..., None] if task.name == "tagging" else real
    assert (expected * shown).abs().max() > 0.5
    assert ((found - expected) * shown).abs().max() <= 1e-4


@pytest.mark.parametrize(
    "task", [Classification(mode="knn"), Multilabel(mode="knn"), Regression(mode="knn"), Tagging(context=1)], ids=str
)
def test_answers_that_are_no_linear_layer_are_refused_with_the_task(task: Task, tmp_path: Path) -> None:
    classes = 0 if task.name == "regression" else CLASSES
    folder = model_folder(tmp_path / "model", *made("bert", "cls", tmp_path), classes, "bert", task)
    with pytest.raises(SpecError, match=f"no head for the task {task.name}") as caught:
        exported(folder, tmp_path, "hf")
    assert caught.value.code == "export_unsupported"


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


@pytest.mark.parametrize(
    ("task", "output"),
    [
        (Classification(mode="knn", neighbours=7), "probabilities"), (Multilabel(), "logits"),
        (Multilabel(mode="knn", neighbours=7), "probabilities"), (Regression(), "number"),
        (Regression(mode="knn", neighbours=100), "number"), (Tagging(), "logits"),
    ],
    ids=str,
)  # fmt: skip
def test_a_file_for_onnxruntime_answers_for_the_task(task: Task, output: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    classes = 0 if task.name == "regression" else CLASSES
    model_folder(tmp_path / "model", *made("bert", "cls", tmp_path), classes, "bert", task)
    folder, verdict = exported(tmp_path / "model", tmp_path, "onnx")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["last_hidden_state", output]
    assert (folder / "classes.txt").exists() == bool(classes)


def test_answers_that_read_neighbouring_tokens_have_no_file_for_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model_folder(tmp_path / "model", *made("bert", "cls", tmp_path), CLASSES, "bert", Tagging(context=1))
    with pytest.raises(SpecError, match="no function of tensors") as caught:
        exported(tmp_path / "model", tmp_path, "onnx")
    assert caught.value.code == "export_unsupported"
