"""The decoder: BART's, packed pairs, padding, and generation a token at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.encoders import build_encoder
from ssl_core.encoders.decoder import Decoder
from ssl_core.encoders.transformer import Transformer
from tests.ssl_core.test_encoders import packed
from tests.ssl_core.test_parity_trunks import CLIP_LAYER, close, randomised, source, tokens_with_padding

FACTS = {"vocab_size": 120, "max_length": 24, "pad_id": 0, "cls_id": 2, "sep_id": 3, "mask_id": 4}
SHAPE = {"name": "custom", "family": "transformer", "width": 32, "depth": 3, "heads": 4, "mlp_ratio": 1.5}
BART = {**SHAPE, "norm": "post", "positions": "learned", "max_positions": 32}
SHAPES = [
    BART,
    SHAPE,
    {**SHAPE, "key_value_heads": 2, "norm_kind": "rms", "bias": False, "mlp": "swiglu", "embedding_norm": False},
]
LAYER = {**CLIP_LAYER, "attention_norm": "self_attn_layer_norm", "feed_forward_norm": "final_layer_norm",
         "feed_forward.up": "fc1", "feed_forward.down": "fc2"}  # fmt: skip
CROSSING = {
    **LAYER,
    "crossing_norm": "encoder_attn_layer_norm",
    "crossing.query": "encoder_attn.q_proj",
    "crossing.key_value": "encoder_attn.k_proj encoder_attn.v_proj",
    "crossing.out": "encoder_attn.out_proj",
}
OUTSIDE = {"token": "shared", "position": "embed_positions[2:]", "embedding_norm": "layernorm_embedding"}


def nets(shape: dict[str, Any]) -> tuple[Transformer, Decoder]:
    torch.manual_seed(0)
    spec = EncoderSpec.model_validate(shape)
    encoder, decoder = build_encoder(spec, FACTS), Decoder(spec)
    assert isinstance(encoder, Transformer)
    return randomised(encoder.double()), randomised(decoder.double())


def answers() -> Tokens:
    """Three rows of 9, 4 and 6 tokens."""
    lengths, slots = torch.tensor([9, 4, 6]), torch.arange(9)
    real = slots < lengths[:, None]
    ids = torch.randint(5, 120, (3, 9), generator=torch.Generator().manual_seed(5)) * real
    return Tokens(ids, torch.where(real, 0, -1).int(), slots * real)


def from_bart(of: dict[str, Tensor], ours: nn.Module, side: str) -> dict[str, Tensor]:
    """Every parameter of ours, taken from one side of theirs."""
    found = {}
    for name, _ in ours.named_parameters():
        place, kind = name.rsplit(".", 1)
        if place.startswith("layers."):
            _, at, inner = place.split(".", 2)
            found[name] = source(of, CROSSING[inner], kind, f"{side}.layers.{at}.")
        else:
            found[name] = source(of, OUTSIDE[place], kind, "" if place == "token" else f"{side}.")
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_encoder_and_decoder_equal_bart_in_output_and_gradient(dtype: torch.dtype, tolerance: float) -> None:
    transformers = pytest.importorskip("transformers")
    encoder, decoder = nets(BART)
    encoder.to(dtype)
    decoder.to(dtype)
    config = transformers.BartConfig(
        vocab_size=120, d_model=32, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4, pad_token_id=0,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32, dropout=0.0,
    )  # fmt: skip
    theirs = randomised(transformers.BartModel(config)).to(dtype)
    public = {name: value.detach() for name, value in theirs.named_parameters()}
    encoder.load_state_dict(from_bart(public, encoder, "encoder"))
    decoder.load_state_dict(from_bart(public, decoder, "decoder"))
    read, written = tokens_with_padding(), answers()
    real = written.segments >= 0
    expected = theirs(
        input_ids=read.ids, attention_mask=(read.segments >= 0).long(), decoder_input_ids=written.ids,
        decoder_attention_mask=real.long(),
    ).last_hidden_state[real]  # fmt: skip
    found = decoder(encoder.token(written.ids), written, encoder.encode(read), read)[real]
    assert close(found, expected, tolerance)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    torch.autograd.backward([(expected * direction).sum(), (found * direction).sum()])
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for ours, side in ((encoder, "encoder"), (decoder, "decoder")):
        wanted = from_bart(gradients, ours, side)
        for name, parameter in ours.named_parameters():
            assert parameter.grad is not None and close(parameter.grad, wanted[name], tolerance), name


@pytest.mark.parametrize("shape", SHAPES, ids=["bart", "rotary", "llama"])
def test_a_token_at_a_time_gives_what_all_at_once_does(shape: dict[str, Any]) -> None:
    encoder, decoder = nets(shape)
    read, written = tokens_with_padding(), answers()
    states, embedded = encoder.encode(read), encoder.token(written.ids)
    expected = decoder(embedded, written, states, read)
    generation = decoder.start(states, read)
    steps = [decoder.step(embedded[:, :2], generation)]
    steps += [decoder.step(embedded[:, at : at + 1], generation) for at in range(2, 7)]
    steps.append(decoder.step(embedded[:, 7:], generation))
    assert generation.length == 9
    real = written.segments >= 0
    assert torch.allclose(torch.cat(steps, 1)[real], expected[real], atol=1e-12)


def test_a_beam_search_can_exchange_rows() -> None:
    encoder, decoder = nets(BART)
    read, ids = tokens_with_padding(), answers().ids
    rows = torch.tensor([2, 0, 0])
    generation = decoder.start(encoder.encode(read), read)
    decoder.step(encoder.token(ids[:, :3]), generation)
    generation.reorder(rows)
    found = decoder.step(encoder.token(ids[rows, 3:4]), generation)
    chosen = Tokens(read.ids[rows], read.segments[rows], read.positions[rows])
    anew = decoder.start(encoder.encode(chosen), chosen)
    expected = decoder.step(encoder.token(ids[rows, :4]), anew)[:, 3:]
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=["bart", "rotary", "llama"])
def test_packed_pairs_do_not_see_each_other(shape: dict[str, Any]) -> None:
    encoder, decoder = nets(shape)
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randint(5, 120, (1, length), generator=generator) for length in (7, 9)]
    targets = [torch.randint(5, 120, (1, length), generator=generator) for length in (3, 5)]

    def output(read: Tokens, written: Tokens) -> Tensor:
        hidden: Tensor = decoder(encoder.token(written.ids), written, encoder.encode(read), read)
        return hidden

    together = output(packed(*sources), packed(*targets))
    apart = [output(packed(read), packed(written)) for read, written in zip(sources, targets, strict=True)]
    assert torch.allclose(together, torch.cat(apart, 1), atol=1e-12)


def test_padding_of_the_answer_gives_finite_numbers_and_gradients() -> None:
    encoder, decoder = nets(BART)
    read, written = packed(torch.tensor([[7, 8, 9]])), answers()
    written = Tokens(written.ids[1:2], written.segments[1:2], written.positions[1:2])
    out = decoder(encoder.token(written.ids), written, encoder.encode(read), read)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in decoder.parameters() if p.requires_grad)


def test_every_parameter_of_the_decoder_gets_a_gradient() -> None:
    encoder, decoder = nets(SHAPES[2])
    read, written = tokens_with_padding(), answers()
    hidden = decoder(encoder.token(written.ids), written, encoder.encode(read), read)
    (hidden**2 * torch.randn_like(hidden)).sum().backward()
    assert not [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("field", [{"window": 8}, {"embedding_width": 16}])
def test_a_spec_that_a_decoder_cannot_follow_is_refused(field: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="neither a window nor an embedding_width"):
        Decoder(EncoderSpec.model_validate({**SHAPE, **field}))
