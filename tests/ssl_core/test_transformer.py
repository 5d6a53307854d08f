"""The trunk: what sees what, pooling, token dropout, grouped queries."""

from __future__ import annotations

import pytest
import torch

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import joined
from ssl_core.encoders.transformer import Transformer, sight
from ssl_core.layers import masked_mean
from tests.ssl_core.test_encoders import CAUSAL, EVERY, TEXT, WINDOWED, document, packed, single, spec, transformer


def test_one_document_a_row_needs_no_causal_mask_even_with_padding_behind() -> None:
    tokens = single(document(5), padding=3)
    assert sight(tokens.segments, tokens.positions, causal=True, window=0, in_order=True) == (None, True)


@pytest.mark.parametrize("segments", [[-1, -1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]], ids=["padding in front", "packed"])
def test_other_rows_need_a_causal_mask(segments: list[int]) -> None:
    mask, causal = sight(torch.tensor([segments]), torch.arange(6)[None], causal=True, window=0, in_order=True)
    assert mask is not None and not causal


def test_a_window_wider_than_the_row_is_none() -> None:
    tokens = single(document(5))
    assert sight(tokens.segments, tokens.positions, causal=False, window=8, in_order=True) == (None, False)


def changed_at(encoder: Transformer, place: int) -> list[int]:
    """Positions whose vector changes with the token at `place` of 12."""
    ids = document(12)
    other = ids.clone()
    other[0, place] = ids[0, place] % 90 + 6
    difference = (encoder.encode(single(ids)) - encoder.encode(single(other))).abs().amax(2)[0]
    return (difference > 1e-9).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("s", CAUSAL[:2], ids=str)
def test_a_causal_trunk_sees_nothing_ahead_and_all_behind(s: EncoderSpec) -> None:
    assert changed_at(transformer(s), 4) == list(range(4, 12))


def test_a_local_layer_sees_half_its_window_on_either_side() -> None:
    assert changed_at(transformer(spec(depth=1, window=4)), 5) == [3, 4, 5, 6, 7]


def test_a_causal_local_layer_sees_the_last_tokens_of_its_window() -> None:
    assert changed_at(transformer(spec(depth=1, window=3, attention="causal")), 5) == [5, 6, 7]


def test_global_layers_between_local_ones_see_all() -> None:
    assert changed_at(transformer(spec(depth=2, window=2)), 5) == [3, 4, 5, 6, 7]
    assert changed_at(transformer(spec(depth=2, window=2, global_every=2)), 5) == list(range(12))


@pytest.mark.parametrize("s", [CAUSAL[0], WINDOWED[0]], ids=str)
def test_kept_positions_in_any_order_see_by_position(s: EncoderSpec) -> None:
    encoder, tokens = transformer(s), single(document(8))
    keep = torch.tensor([[5, 1, 7, 4]])
    order = torch.tensor([1, 3, 0, 2])
    assert torch.allclose(
        encoder.encode(tokens, keep=keep)[:, order], encoder.encode(tokens, keep=keep[:, order]), atol=1e-12
    )


def test_the_vector_of_a_text_is_its_mean_its_first_or_its_last_token() -> None:
    tokens = joined((single(document(7)), single(document(12, seed=1))))
    encoders = {pooling: transformer(spec(pooling=pooling)) for pooling in ("mean", "cls", "last")}
    hidden = encoders["mean"].encode(tokens)
    assert torch.equal(encoders["cls"](tokens), hidden[:, 0])
    assert torch.equal(encoders["last"](tokens), torch.stack([hidden[0, 6], hidden[1, 11]]))
    assert torch.equal(encoders["mean"](tokens), masked_mean(hidden, tokens.segments >= 0))


def test_masked_tokens_enter_as_zero_and_the_others_grow() -> None:
    encoder = transformer(spec(token_dropout=0.12))
    ids = document(8)
    ids[0, 1] = ids[0, 5] = TEXT["mask_id"]
    found = encoder.patches(single(ids))
    assert not found[0, [1, 5]].any()
    assert torch.allclose(found[0, 0], encoder.token.weight[ids[0, 0]] * 0.88 / 0.75)


def test_a_document_of_mask_tokens_alone_is_finite() -> None:
    encoder = transformer(spec(token_dropout=0.12))
    out = encoder(packed(document(4), torch.full((1, 3), TEXT["mask_id"])))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("s", EVERY, ids=str)
def test_every_parameter_of_the_trunk_gets_a_gradient(s: EncoderSpec) -> None:
    encoder = transformer(s)
    hidden = encoder.encode(packed(document(7), document(9, seed=1)))
    torch.autograd.backward((hidden * torch.randn_like(hidden)).sum())
    assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_lone_query_group_is_what_many_equal_ones_are() -> None:
    shared, full = transformer(spec(key_value_heads=1)), transformer(spec())
    weights = dict(shared.state_dict())
    for name, value in shared.state_dict().items():
        if "attention.qkv" in name:
            q, k, v = value.split([32, 16, 16])
            weights[name] = torch.cat([q, k, k, v, v])
    full.load_state_dict(weights)
    tokens = packed(document(7), document(9, seed=1))
    assert torch.allclose(shared.encode(tokens), full.encode(tokens), atol=1e-12)


@pytest.mark.parametrize("s", [spec(), CAUSAL[2], spec(attention="causal", token_dropout=0.1)], ids=str)
def test_only_a_causal_trunk_goes_a_token_at_a_time(s: EncoderSpec) -> None:
    encoder = transformer(s)
    with pytest.raises(ValueError, match="only a causal trunk without windows"):
        encoder.step(document(3), encoder.pasts())
