"""Filling and checking a spec: what the API answers at submission."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ssl_core.backbones import BACKBONES
from ssl_core.errors import SpecError
from ssl_core.modalities.image import ImageModality
from ssl_core.modalities.text import TextModality
from ssl_core.recipes import estimate, resolve
from ssl_core.spec import JOB_SPEC, DatasetFacts, ModelFacts, TrainPlan

TEXT = DatasetFacts(id="ds_t", modality="text", rows=5000, characters=4_000_000, labelled=0)
NEWS = DatasetFacts(
    id="ds_n",
    modality="text",
    rows=100,
    characters=80_000,
    labelled=100,
    classes=["a", "b"],
    class_counts={"a": 50, "b": 50},
)
IMAGES = DatasetFacts(
    id="ds_i", modality="image", rows=1000, width=32, height=32, channels=3, labelled=1000, classes=["x", "y"]
)
PAIRS = DatasetFacts(
    id="ds_p", modality="image_text", rows=1000, characters=40_000, width=64, height=64, channels=3, labelled=0
)
BASE = ModelFacts(id="mdl_b", modality=TextModality(), backbone=BACKBONES["text-small"])
# What may stay open in a stored spec, because None is itself the documented setting.
MAY_BE_NONE = {
    "penalty",
    "pool",
    "checkpoint_every_steps",
    "suffix",
    "model",
    "validation_dataset",
    "test_dataset",
    "labels",
    "probe",
    "steps",
    "epochs",
    "tokens",
    "examples",
    "minutes",
    # The towers of an encoder that has two.
    "image",
    "text",
}


def parse(**fields: Any) -> Any:
    return JOB_SPEC.validate_python(fields)


def pretrain(objective: str = "mlm", **fields: Any) -> Any:
    return parse(type="pretrain", dataset="ds_x", objective={"name": objective}, **fields)


def finetune(**fields: Any) -> Any:
    return parse(type="finetune", dataset="ds_x", task={"name": "classification"}, **fields)


CASES: list[tuple[Any, DatasetFacts, ModelFacts | None]] = [
    (pretrain(), TEXT, None),
    (pretrain("span_contrast", budget={"minutes": 5.0}), TEXT, None),
    (pretrain("simclr", probe={"dataset": "ds_p"}), IMAGES, None),
    (pretrain("simclr", backbone="image-resnet18", resources={"queue": "gpu"}), IMAGES, None),
    (pretrain(model="mdl_b"), TEXT, BASE),
    (finetune(), IMAGES, None),
    (finetune(model="mdl_b"), NEWS, BASE),
    (finetune(model="mdl_b", initialization="random", validation_dataset="ds_v"), NEWS, BASE),
]
every_case = pytest.mark.parametrize(("spec", "dataset", "base"), CASES)


def open_fields(value: Any, name: str = "") -> list[str]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in open_fields(item, key)]
    return [name] if value is None else []


@every_case
def test_a_resolved_spec_resolves_to_itself(spec: Any, dataset: DatasetFacts, base: ModelFacts | None) -> None:
    resolved = resolve(spec, dataset, base)
    sent_back = JOB_SPEC.validate_json(json.dumps(resolved.model_dump(mode="json")))
    assert resolve(sent_back, dataset, base) == resolved == sent_back


@every_case
def test_no_auto_survives(spec: Any, dataset: DatasetFacts, base: ModelFacts | None) -> None:
    resolved = resolve(spec, dataset, base)
    assert set(open_fields(resolved.model_dump(mode="json"))) <= MAY_BE_NONE
    assert TrainPlan.of(resolved).batch_size == resolved.batch_size


@every_case
def test_what_was_sent_is_kept(spec: Any, dataset: DatasetFacts, base: ModelFacts | None) -> None:
    resolved = resolve(spec.model_copy(update={"seed": 7, "batch_size": 4}), dataset, base)
    assert (resolved.seed, resolved.batch_size, resolved.dataset) == (7, 4, spec.dataset)


@every_case
def test_every_resolved_spec_can_be_estimated(spec: Any, dataset: DatasetFacts, base: ModelFacts | None) -> None:
    resolved = resolve(spec, dataset, base)
    told = estimate(resolved, dataset)
    assert (told.steps is None) == (resolved.budget.minutes is not None)
    assert told.parameters > 100_000 and told.memory_bytes > 16 * told.parameters


def test_pictures_set_size_and_channels() -> None:
    grey = IMAGES.model_copy(update={"width": 28, "height": 30, "channels": 1})
    modality = resolve(pretrain("simclr"), grey).modality
    assert isinstance(modality, ImageModality)
    assert (modality.size, modality.channels, modality.flip) == (28, 1, False)


def test_tiny_pictures_get_a_shallow_net_and_gentle_crops() -> None:
    digits = IMAGES.model_copy(update={"width": 8, "height": 8, "channels": 1})
    resolved = resolve(pretrain("simclr"), digits)
    assert resolved.backbone == BACKBONES["image-convnet-tiny"]
    assert (resolved.modality.crop_min, resolved.modality.jitter) == (0.35, 0.0)


def test_a_pool_of_sounds_is_passed_over_more_often_than_one_of_pictures_up_to_the_most_steps() -> None:
    def steps(modality: str, rows: int) -> int | None:
        resolved = resolve(pretrain("simclr"), DatasetFacts(id="ds_a", modality=modality, rows=rows))
        assert resolved.budget is not None
        return resolved.budget.steps

    assert steps("audio", 2700) == 100 * 2565 // 128
    assert steps("image", 2700) == 30 * 2565 // 256
    assert steps("audio", 27_000) == 3000


def test_contrast_of_text_on_a_cpu_is_wide_and_shallow_and_on_a_gpu_deep() -> None:
    assert resolve(pretrain("span_contrast"), TEXT).backbone == BACKBONES["text-shallow"]
    assert resolve(pretrain("span_contrast", resources={"queue": "gpu"}), TEXT).backbone == BACKBONES["text-base"]


def test_a_small_pool_is_folded_to_one_case_and_a_large_one_is_not() -> None:
    large = TEXT.model_copy(update={"characters": 10**9})
    assert [resolve(pretrain(), facts).modality.lowercase for facts in (TEXT, large)] == [True, False]


def test_a_probe_is_fitted_on_every_label() -> None:
    probe = parse(type="finetune", dataset="ds_x", task={"name": "classification", "mode": "linear_probe"})
    assert resolve(probe, NEWS).validation_fraction == 0
    assert resolve(finetune(), NEWS).validation_fraction == 0.2


def test_a_pretrained_encoder_is_tuned_at_a_tenth_of_the_rate() -> None:
    tuned, fresh = (
        resolve(finetune(model="mdl_b", initialization=start), NEWS, BASE).optimizer.learning_rate
        for start in ("pretrained", "random")
    )
    assert tuned == pytest.approx(fresh / 10)


def test_a_transformer_over_patches_learns_as_fast_as_one_over_tokens_of_its_shape() -> None:
    vit = resolve(pretrain("mae", backbone="vit-base"), IMAGES).optimizer.learning_rate
    text = resolve(pretrain(backbone="text-base"), TEXT).optimizer.learning_rate
    assert vit == text == pytest.approx(5e-4)


@pytest.mark.parametrize(
    ("name", "slower", "modality"),
    [("pair-tiny", "image-convnet", IMAGES), ("pair-small", "text-small", TEXT), ("pair-large", "text-base", TEXT)],
)
def test_two_towers_learn_at_the_rate_of_the_slower_one(name: str, slower: str, modality: DatasetFacts) -> None:
    alone = resolve(pretrain("simclr" if modality is IMAGES else "mlm", backbone=slower), modality)
    assert resolve(pretrain("clip", backbone=name), PAIRS).optimizer.learning_rate == alone.optimizer.learning_rate


def test_without_a_model_the_start_is_random() -> None:
    assert resolve(finetune(), IMAGES).initialization == "random"


REFUSED: list[tuple[Any, DatasetFacts, ModelFacts | None, str, str]] = [
    (pretrain("simclr"), TEXT, None, "modality_mismatch", "objective.name"),
    (pretrain("mlm"), IMAGES, None, "modality_mismatch", "objective.name"),
    (pretrain(modality=ImageModality()), TEXT, None, "modality_mismatch", "modality.name"),
    (pretrain(modality=TextModality(max_length=64), model="mdl_b"), TEXT, BASE, "modality_mismatch", "modality"),
    (finetune(model="mdl_b"), IMAGES, BASE, "modality_mismatch", "model"),
    (pretrain(backbone="image-convnet"), TEXT, None, "backbone_mismatch", "backbone.family"),
    (pretrain(backbone="text-base", model="mdl_b"), TEXT, BASE, "backbone_mismatch", "backbone"),
    (pretrain("simclr", modality=ImageModality(size=64)), IMAGES, None, "infeasible_config", "modality.size"),
    (pretrain(modality=TextModality(max_length=2048)), TEXT, None, "infeasible_config", "modality.max_length"),
    (pretrain("simclr", batch_size=1001), IMAGES, None, "infeasible_config", "batch_size"),
    (finetune(batch_size=200), NEWS, None, "infeasible_config", "batch_size"),
    (pretrain(batch_size=2, resources={"processes": 4}), TEXT, None, "infeasible_config", "resources.processes"),
    (pretrain(), TEXT.model_copy(update={"rows": 1}), None, "dataset_too_small", "dataset"),
    (pretrain(), TEXT.model_copy(update={"rows": 0}), None, "dataset_too_small", "dataset"),
    (finetune(), TEXT, None, "no_classes", "dataset"),
    (finetune(), NEWS.model_copy(update={"classes": ["a"]}), None, "no_classes", "dataset"),
]


@pytest.mark.parametrize(("spec", "dataset", "base", "code", "param"), REFUSED)
def test_what_cannot_work_is_refused_at_the_field(
    spec: Any, dataset: DatasetFacts, base: ModelFacts | None, code: str, param: str
) -> None:
    with pytest.raises(SpecError) as error:
        resolve(spec, dataset, base)
    assert (error.value.code, error.value.param) == (code, param)


def test_a_mismatch_names_what_is_allowed() -> None:
    with pytest.raises(SpecError, match=r"simclr fits .*image.* and this dataset is text"):
        resolve(pretrain("simclr"), TEXT)
    with pytest.raises(SpecError, match="needs a backbone of family transformer, not convnet"):
        resolve(pretrain(backbone="image-convnet"), TEXT)


def test_more_memory_than_the_machine_has_is_refused_with_both_numbers() -> None:
    huge = pretrain(backbone="text-large", batch_size=4096)
    with pytest.raises(SpecError, match=r"predicted memory .* GiB is over the 8\.0 GiB") as error:
        resolve(huge, TEXT, memory_limit=8 * 2**30)
    assert (error.value.code, error.value.param) == ("infeasible_config", "batch_size")


def test_a_cpu_job_trains_in_what_the_workers_are_faster_with_unless_it_says_otherwise() -> None:
    spec = JOB_SPEC.validate_python({"type": "pretrain", "dataset": "ds_t", "objective": {"name": "mlm"}})
    assert resolve(spec, TEXT).precision == "fp32"  # type: ignore[type-var]
    assert resolve(spec, TEXT, cpu_precision="bf16").precision == "bf16"  # type: ignore[type-var]
    told = spec.model_copy(update={"precision": "fp32"})
    assert resolve(told, TEXT, cpu_precision="bf16").precision == "fp32"  # type: ignore[type-var]


def test_a_detector_reads_whole_pictures_of_its_own_size_from_a_model_that_did_not() -> None:
    pictures = DatasetFacts(
        id="ds_x", modality="image", rows=40, width=640, height=480, channels=3,
        targets={"boxes": {"rows": 40, "classes": ["cell"], "class_counts": {"cell": 90}}},
    )  # fmt: skip
    base = ModelFacts(id="mdl_x", modality=ImageModality(size=32), backbone=BACKBONES["image-convnet"])
    spec = parse(type="finetune", dataset="ds_x", model="mdl_x", task={"name": "detection", "size": 256})
    found = resolve(spec, pictures, base)
    assert isinstance(found.modality, ImageModality)
    assert (found.modality.size, found.modality.fit) == (256, "stretch")
    assert resolve(found, pictures, base) == found
    small = parse(type="finetune", dataset="ds_x", model="mdl_x", task={"name": "detection", "size": 64})
    less = estimate(resolve(small, pictures, base), pictures).memory_bytes
    assert estimate(found, pictures).memory_bytes > 1.5 * less
