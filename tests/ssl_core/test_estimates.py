"""Predictions beside what the engine really builds."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.encoders import build_encoder
from ssl_core.encoders.decoder import Decoder
from ssl_core.estimates import decoder_parameters, encoder_parameters, memory_bytes, steps_of, tokens_per_sample
from ssl_core.modalities.image import ImageModality
from ssl_core.modalities.text import TextModality
from ssl_core.spec import Budget, DatasetFacts

TEXT = TextModality(vocab_size=2048)
FACTS: dict[str, Any] = {
    "vocab_size": 2048, "max_length": 128, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4,
    "channels": 3, "size": 32,
}  # fmt: skip
POOL = DatasetFacts(id="ds_p", modality="text", rows=1000, characters=512_000)


@pytest.mark.parametrize("name", ["text-tiny", "text-small", "image-convnet", "image-resnet18", "image-resnet50"])
def test_the_predicted_parameters_are_near_the_real_ones(name: str) -> None:
    encoder = build_encoder(BACKBONES[name], FACTS)
    real = sum(parameter.numel() for parameter in encoder.parameters())
    modality = TEXT if name.startswith("text") else ImageModality()
    assert 0.6 * real < encoder_parameters(BACKBONES[name], modality) < 1.6 * real


TEXT_SHAPES: list[dict[str, Any]] = [
    {"mlp": "swiglu", "key_value_heads": 1, "bias": False, "norm_kind": "rms", "attention": "causal"},
    {"embedding_width": 32, "positions": "learned", "norm": "post"},
]


@pytest.mark.parametrize("shape", TEXT_SHAPES, ids=["llama", "electra"])
def test_the_predicted_parameters_of_other_shapes_are_within_two_percent(shape: dict[str, Any]) -> None:
    base = {"name": "custom", "family": "transformer", "width": 128, "depth": 3, "heads": 4}
    backbone = EncoderSpec.model_validate({**base, **shape})
    real = sum(parameter.numel() for parameter in build_encoder(backbone, FACTS).parameters())
    assert encoder_parameters(backbone, TEXT) == pytest.approx(real, rel=0.02)


def test_a_gated_feed_forward_keeps_more() -> None:
    gated = BACKBONES["text-small"].model_copy(update={"mlp": "geglu"})
    plain = memory_bytes(BACKBONES["text-small"], TEXT, 32, ("plain",), half=False)
    assert memory_bytes(gated, TEXT, 32, ("plain",), half=False) > plain


@pytest.mark.parametrize("name", ["text-small", "text-bart-small"])
def test_the_predicted_parameters_of_a_decoder_are_within_two_percent(name: str) -> None:
    real = sum(parameter.numel() for parameter in Decoder(BACKBONES[name], 3).parameters())
    assert decoder_parameters(BACKBONES[name], 3) == pytest.approx(real, rel=0.02)


def test_a_decoder_needs_memory_by_its_depth() -> None:
    spec, small = BACKBONES["text-small"], ("plain",)
    needed = [memory_bytes(spec, TEXT, 32, small, half=False, decoder_layers=layers) for layers in (0, 2, 6)]
    assert needed[1] > 1.2 * needed[0] and needed[2] > 1.2 * needed[1]


def test_memory_grows_with_batch_views_and_width_and_shrinks_with_half_precision() -> None:
    plain, small = ("plain",), memory_bytes(BACKBONES["text-small"], TEXT, 32, ("plain",), half=False)
    assert memory_bytes(BACKBONES["text-small"], TEXT, 64, plain, half=False) > small
    assert memory_bytes(BACKBONES["text-small"], TEXT, 32, ("plain", "plain"), half=False) > small
    assert memory_bytes(BACKBONES["text-base"], TEXT, 32, plain, half=False) > small
    assert memory_bytes(BACKBONES["text-small"], TEXT, 32, plain, half=True) < small


def test_a_span_needs_the_memory_of_its_own_length() -> None:
    half_length = TextModality(vocab_size=2048, max_length=128, span_max=64)
    spans = memory_bytes(BACKBONES["text-small"], half_length, 32, ("span", "span"), half=False)
    assert spans == memory_bytes(BACKBONES["text-small"], half_length, 32, ("plain",), half=False)


def test_a_pool_is_counted_in_documents_and_predicted_in_rows() -> None:
    assert TEXT.samples(POOL, "document") == 1000 and TEXT.samples(POOL, "row") == 1000
    assert tokens_per_sample(POOL, TEXT, ("packed",)) == 128.0 == tokens_per_sample(POOL, TEXT, ("plain",))


def test_two_spans_count_as_two_spans_not_as_the_whole_document() -> None:
    assert tokens_per_sample(POOL, TEXT, ("span", "span")) == 2 * 48.0
    short = POOL.model_copy(update={"characters": 64_000})
    assert tokens_per_sample(short, TEXT, ("span", "span")) == 16.0


def test_a_sample_of_pictures_counts_as_one_whatever_its_views() -> None:
    pictures = DatasetFacts(id="ds_p", modality="image", rows=10, width=32, height=32, channels=3)
    assert tokens_per_sample(pictures, ImageModality(), ("global", "global")) == 1.0


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"steps": 5}, 5), ({"epochs": 2.0}, 62), ({"examples": 100}, 4), ({"tokens": 9000}, 3), ({"minutes": 1.0}, None)],
)
def test_budgets_become_steps(budget: dict[str, Any], steps: int | None) -> None:
    assert steps_of(Budget(**budget), per_epoch=1000, batch_size=32, tokens=128.0) == steps
