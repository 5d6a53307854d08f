"""What each objective puts together; the contract of all of them is tested in `test_contract.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch, Tokens, joined
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.layers import masked_mean
from ssl_core.losses import info_nce, nt_xent
from ssl_core.objectives import OBJECTIVES

FACTS = {"vocab_size": 90, "max_length": 16, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
SEEDS = torch.arange(6)


def text_encoder() -> Encoder:
    torch.manual_seed(0)
    spec = EncoderSpec(name="custom", family="transformer", width=32, depth=1, heads=2)
    return build_encoder(spec, FACTS)


def image_encoder() -> Encoder:
    torch.manual_seed(0)
    return build_encoder(EncoderSpec(name="custom", family="convnet", width=16, depth=2), {"channels": 1, "size": 8})


def rows(seed: int, length: int = 16) -> Tokens:
    ids = torch.randint(5, 90, (6, length), generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([length, 5, 9, length, 12, 7])
    slots = torch.arange(length)
    real = slots < lengths[:, None]
    starts = torch.rand(6, length, generator=torch.Generator().manual_seed(seed)) < 0.6
    return Tokens(ids * real, torch.where(real, 0, -1).int(), slots * real, starts)


def objective(name: str, **fields: Any) -> Any:
    return OBJECTIVES[name].model_validate({"name": name, **fields})


@pytest.mark.parametrize("whole_word", [False, True])
def test_an_untrained_model_guesses_among_the_whole_vocabulary(whole_word: bool) -> None:
    mlm = objective("mlm", whole_word=whole_word)
    nets = mlm.build(text_encoder())
    values = mlm.loss(nets, Batch((rows(0),), SEEDS))
    assert float(values["loss"].detach()) == pytest.approx(math.log(90), rel=0.1)
    assert float(values["perplexity"]) == pytest.approx(math.exp(float(values["loss"].detach())), rel=1e-5)


def test_the_output_layer_of_mlm_is_the_token_embedding() -> None:
    mlm = objective("mlm")
    nets = mlm.build(text_encoder())
    assert not [name for name, p in nets.parts.named_parameters() if p.shape == (90, 32)]
    mlm.loss(nets, Batch((rows(0),), SEEDS))["loss"].backward()
    # Entries that no row holds get a gradient through the output only.
    absent = torch.ones(90, dtype=torch.bool)
    absent[rows(0).ids.unique()] = False
    absent[4] = False
    assert nets.encoder.get_parameter("token.weight").grad[absent].any(1).all()


def test_simclr_is_nt_xent_of_the_projections_of_both_views_in_one_pass() -> None:
    simclr = objective("simclr", temperature=0.2, projector_dim=16, projector_hidden=24)
    nets = simclr.build(image_encoder())
    first, second = torch.randn(2, 6, 1, 8, 8)
    projected = nets.parts["projector"](nets.encoder(torch.cat([first, second])))
    expected, found = nt_xent(*projected.chunk(2), 0.2)
    values = simclr.loss(nets, Batch((first, second), SEEDS))
    assert torch.allclose(values["loss"], expected, atol=1e-6)
    assert torch.equal(values["contrast_accuracy"], found)
    assert projected.shape == (12, 16)


def test_span_contrast_is_info_nce_of_the_mean_vectors() -> None:
    contrast = objective("span_contrast", temperature=0.1)
    nets = contrast.build(text_encoder())
    first, second = rows(1), rows(2, length=12)
    vectors = [masked_mean(nets.encoder.encode(view), view.segments >= 0) for view in (first, second)]
    expected, _ = info_nce(*vectors, 0.1)
    values = contrast.loss(nets, Batch((first, second), SEEDS))
    assert torch.allclose(values["loss"], expected, atol=1e-5)
    assert set(values) == {"loss", "contrast_loss", "contrast_accuracy"}


def test_the_masked_part_of_span_contrast_is_added_with_its_weight() -> None:
    contrast = objective("span_contrast", mask_weight=0.5, projector_dim=16)
    nets = contrast.build(text_encoder())
    values = contrast.loss(nets, Batch((rows(1), rows(2)), SEEDS))
    assert torch.allclose(values["loss"], values["contrast_loss"] + 0.5 * values["masked_loss"])
    assert float(values["masked_loss"]) == pytest.approx(math.log(90), rel=0.1)


def test_the_two_spans_of_a_document_are_masked_differently() -> None:
    contrast = objective("span_contrast", mask_weight=1.0, mask_probability=0.5)
    nets = contrast.build(text_encoder())
    seen: list[Tokens] = []
    encode = nets.encoder.encode
    nets.encoder.encode = lambda x, **_: seen.append(x) or encode(x)  # type: ignore[method-assign,func-returns-value]
    contrast.loss(nets, Batch((rows(1), rows(1)), SEEDS))
    first, second = (seen[0].ids == 4).chunk(2)
    assert not torch.equal(first, second)


def test_joined_views_are_padded_to_the_longest() -> None:
    both = joined((rows(1), rows(2, length=12)))
    assert both.ids.shape == (12, 16)
    assert (both.segments[6:, 12:] == -1).all()
    assert torch.equal(both.ids[6:, :12], rows(2, length=12).ids)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mlm", {"mask_probability": 0.9}),
        ("mlm", {"temperature": 0.1}),
        ("simclr", {"temperature": 0.0}),
        ("simclr", {"projector_layers": 0}),
        ("span_contrast", {"mask_weight": -1.0}),
        ("span_contrast", {"projector_dim": True}),
    ],
)
def test_a_hyperparameter_out_of_bounds_is_refused_by_name(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        objective(name, **fields)
