"""Encoders: shapes, packing, padding, layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssl_core.backbones import BACKBONES, FAMILIES, EncoderSpec
from ssl_core.batch import Tokens, joined, one_text, stacked
from ssl_core.encoders import ENCODERS, build_encoder
from ssl_core.encoders.transformer import Transformer, attention_mask
from ssl_core.errors import SpecError
from ssl_core.layers import masked_mean, rotary_angles, rotate

TEXT = {"vocab_size": 100, "max_length": 16, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
IMAGE = {"channels": 3, "size": 32, "samples": 16_000}


def spec(**fields: Any) -> EncoderSpec:
    shape = {"name": "custom", "family": "transformer", "width": 32, "depth": 2, "heads": 2}
    return EncoderSpec.model_validate({**shape, **fields})


SPECS = [
    spec(),
    spec(norm="post", positions="learned"),
    spec(mlp="geglu", bias=False),
    spec(mlp="swiglu", positions="none"),
]
CAUSAL = [
    spec(attention="causal", embedding_norm=False),
    spec(attention="causal", positions="learned", pooling="last"),
    spec(attention="causal", window=3, norm_kind="rms", key_value_heads=1, qkv_bias="no"),
]
WINDOWED = [
    spec(depth=1, window=4),
    spec(window=4, global_every=2, local_rotary_base=100.0, layer_scale=0.5),
]
OTHERS = [
    spec(token_dropout=0.12, embedding_norm=False),
    spec(embedding_width=16, norm="post", pooling="cls", positions="learned"),
    spec(mlp="relu", first_norm=True),
]
EVERY = [*SPECS, *CAUSAL, *WINDOWED, *OTHERS]


def document(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, 100, (1, length), generator=torch.Generator().manual_seed(seed))


def single(ids: torch.Tensor, padding: int = 0) -> Tokens:
    real = ids.shape[1]
    ids = torch.nn.functional.pad(ids, (0, padding))
    slots = torch.arange(real + padding)[None]
    segments = torch.where(slots < real, 0, -1).int()
    return Tokens(ids, segments, torch.where(slots < real, slots, 0))


def packed(*documents: torch.Tensor) -> Tokens:
    segments = torch.cat([torch.full_like(ids, at) for at, ids in enumerate(documents)], 1).int()
    return Tokens(torch.cat(documents, 1), segments, torch.cat([torch.arange(d.shape[1])[None] for d in documents], 1))


def transformer(s: EncoderSpec) -> Transformer:
    torch.manual_seed(0)
    encoder = build_encoder(s, TEXT).double().eval()
    assert isinstance(encoder, Transformer)
    return encoder


def test_every_family_of_the_spec_is_built_and_the_other_way_round() -> None:
    assert set(ENCODERS) == set(FAMILIES)


@pytest.mark.parametrize("row", BACKBONES.values(), ids=BACKBONES)
def test_every_backbone_of_the_catalogue_is_built(row: EncoderSpec) -> None:
    with torch.device("meta"):
        encoder = build_encoder(row, {**TEXT, **IMAGE, "image": IMAGE, "text": {**TEXT, "max_length": 16}})
    assert encoder.embed_dim > 0


@pytest.mark.parametrize("s", EVERY, ids=str)
def test_documents_of_a_packed_row_do_not_see_each_other(s: EncoderSpec) -> None:
    encoder = transformer(s)
    first, second = document(7), document(9, seed=1)
    first[0, 2] = first[0, 5] = second[0, 3] = TEXT["mask_id"]
    together = encoder.encode(packed(first, second))
    apart = torch.cat([encoder.encode(single(first)), encoder.encode(single(second))], 1)
    assert torch.allclose(together, apart, atol=1e-12)


@pytest.mark.parametrize("s", EVERY, ids=str)
def test_padding_changes_nothing(s: EncoderSpec) -> None:
    encoder = transformer(s)
    plain = encoder(single(document(7)))
    assert torch.allclose(encoder(single(document(7), padding=5)), plain, atol=1e-12)
    both = joined((single(document(7)), single(document(12, seed=1))))
    assert torch.allclose(encoder(both)[:1], plain, atol=1e-12)


@pytest.mark.parametrize("s", [SPECS[0], SPECS[1]], ids=str)
def test_the_order_of_tokens_matters(s: EncoderSpec) -> None:
    encoder = transformer(s)
    assert not torch.allclose(encoder(single(document(7))), encoder(single(document(7).flip(1))), atol=1e-6)


def test_without_positions_a_text_is_a_bag_of_tokens() -> None:
    encoder = transformer(SPECS[3])
    assert torch.allclose(encoder(single(document(7))), encoder(single(document(7).flip(1))), atol=1e-12)


def test_a_row_of_padding_alone_gives_finite_numbers_and_gradients() -> None:
    encoder = transformer(SPECS[0])
    zeros = torch.zeros(2, 4, dtype=torch.int64)
    empty = Tokens(zeros, torch.tensor([[0, 0, 0, 0], [-1, -1, -1, -1]]).int(), zeros)
    out = encoder(empty)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)
    assert (out[1] == 0).all()


def test_one_full_document_a_row_needs_no_mask() -> None:
    assert attention_mask(torch.zeros(3, 5, dtype=torch.int32)) is None


def test_only_the_kept_positions_are_computed() -> None:
    encoder, tokens = transformer(SPECS[0]), single(document(8))
    keep = torch.tensor([[1, 4, 5]])
    kept = encoder.encode(tokens, keep=keep)
    alone = Tokens(tokens.ids.gather(1, keep), tokens.segments.gather(1, keep), tokens.positions.gather(1, keep))
    assert torch.allclose(kept, encoder.encode(alone), atol=1e-12)


def test_embeddings_can_be_replaced() -> None:
    encoder, tokens = transformer(SPECS[0]), single(document(8))
    assert torch.equal(encoder.encode(tokens, fill=encoder.patches(tokens)), encoder.encode(tokens))
    assert not torch.equal(encoder.encode(tokens, fill=torch.zeros(1, 8, 32).double()), encoder.encode(tokens))


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def score(at: int, other: int) -> float:
        turned = [
            rotate(x, *rotary_angles(torch.tensor([[place]]), 8, 100.0, torch.float64))
            for x, place in ((q, at), (k, other))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(3, 1) == pytest.approx(score(9, 7), abs=1e-12)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-6)


def test_more_tokens_than_learned_positions_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match="16 tokens do not fit 8 learned positions"):
        build_encoder(spec(positions="learned", max_positions=8), TEXT)


def test_the_mean_is_over_real_tokens() -> None:
    x = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]]])
    real = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(x, real).tolist() == [[2.0], [0.0]]


CONV = [
    EncoderSpec(name="custom", family="convnet", width=16, depth=4),
    EncoderSpec(name="custom", family="convnet", width=16, depth=3, stem="large"),
    EncoderSpec(name="custom", family="resnet", width=16, depth=18),
    EncoderSpec(name="custom", family="resnet", width=16, depth=50, stem="large"),
]


@pytest.mark.parametrize("s", CONV, ids=str)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 45)])
def test_the_vector_of_a_picture_is_the_mean_of_its_positions(s: EncoderSpec, channels: int, size: int) -> None:
    encoder = build_encoder(s, {"channels": channels, "size": size}).eval()
    x = torch.randn(2, channels, size, size)
    assert encoder(x).shape == (2, encoder.embed_dim)
    assert torch.allclose(encoder.encode(x).mean(1), encoder(x), atol=1e-5)


@pytest.mark.parametrize("s", CONV, ids=str)
def test_the_memory_layout_of_a_picture_does_not_matter(s: EncoderSpec) -> None:
    encoder = build_encoder(s, IMAGE).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(encoder(x), encoder(x.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("s", CONV, ids=str)
def test_every_parameter_of_a_conv_net_gets_a_gradient(s: EncoderSpec) -> None:
    encoder = build_encoder(s, IMAGE)
    (encoder(torch.randn(4, 3, 32, 32)) ** 2).sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("argument", ["keep", "fill"])
def test_a_conv_net_says_that_it_computes_every_position(argument: str) -> None:
    encoder = build_encoder(CONV[0], IMAGE)
    with pytest.raises(ValueError, match="neither keep nor fill"):
        encoder.encode(torch.randn(1, 3, 32, 32), **{argument: torch.zeros(1, 1, 1)})


def test_a_picture_too_small_for_the_stages_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="at least 8 pixels"):
        build_encoder(CONV[0], {"channels": 1, "size": 4})


def test_views_of_the_wrong_kind_are_refused() -> None:
    picture, text = torch.zeros(1, 3, 8, 8), single(document(3))
    with pytest.raises(TypeError):
        one_text((picture,))
    with pytest.raises(TypeError):
        one_text((text, text))
    with pytest.raises(TypeError):
        stacked((text,))
    with pytest.raises(TypeError):
        joined((picture,))
    with pytest.raises(TypeError, match="reads Tokens"):
        transformer(SPECS[0])(picture)
    with pytest.raises(TypeError, match="reads pictures"):
        build_encoder(CONV[0], IMAGE)(text)


def test_the_mean_of_a_row_is_exact_also_under_autocast() -> None:
    x = (1 + torch.randn(2, 300, 8, generator=torch.Generator().manual_seed(0))).bfloat16()
    real = torch.arange(300) < torch.tensor([[300], [259]])
    expected = torch.stack([row[mine].double().mean(0) for row, mine in zip(x, real, strict=True)])
    with torch.autocast("cpu", torch.bfloat16):
        found = masked_mean(x, real)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, rtol=1e-6, atol=1e-6)
