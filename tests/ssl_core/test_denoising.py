"""Denoising against BART, packed rows, what is written, and the decoder that a finished model keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch, Tokens
from ssl_core.corruption import Corrupted, Corruption, only_first
from ssl_core.denoise import denoising_loss, embedded, read, spelled, write
from ssl_core.encoders import build_encoder
from ssl_core.encoders.decoder import Decoder
from ssl_core.errors import SpecError
from ssl_core.nets import Nets
from ssl_core.objectives.denoising import Denoising
from tests.ssl_core.test_corruption import rows
from tests.ssl_core.test_decoder import BART, FACTS, SHAPE, from_bart
from tests.ssl_core.test_parity_trunks import randomised

SIZE, END = FACTS["vocab_size"], FACTS["sep_id"]
NOISES = pytest.mark.parametrize("noise", ["infilling", "span_corruption"])
SEEDS = torch.arange(3)
DRAW: dict[str, Any] = {"noise_probability": 0.3, "mean_span": 2.0}


def nets(noise: Any, shape: dict[str, Any] | None = None, **fields: Any) -> Nets:
    torch.manual_seed(0)
    spec = EncoderSpec.model_validate(shape or BART)
    made = Denoising(noise=noise, **DRAW, **fields).build(build_encoder(spec, FACTS))
    return randomised(made.double())  # type: ignore[no-any-return]


def corrupted(noise: Any, tokens: Tokens) -> Corrupted:
    return Corruption(noise, 0.3, 2.0)(tokens, SEEDS[: len(tokens.ids)], FACTS)


def both_tables(ours: Nets) -> Tensor:
    """(V, D) of tokens and sentinels."""
    named = dict(ours.named_parameters())
    return torch.cat([named[name] for name in ("encoder.token.weight", "parts.sentinels.weight") if name in named])


@NOISES
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=str)
def test_loss_and_gradients_equal_bart_s(noise: str, dtype: torch.dtype, tolerance: float) -> None:
    transformers = pytest.importorskip("transformers")
    ours = nets(noise).to(dtype)
    entries = len(both_tables(ours))
    config = transformers.BartConfig(
        vocab_size=entries, d_model=32, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4, pad_token_id=0,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32, dropout=0.0,
    )  # fmt: skip
    theirs = randomised(transformers.BartForConditionalGeneration(config)).to(dtype)
    public = {name.removeprefix("model."): value.detach() for name, value in theirs.named_parameters()}
    ours.load_state_dict(taken(ours, public))
    # One document a row, as public models have it, cut to three lengths.
    row = corrupted(noise, rows([24], [15], [7]))
    expected = theirs(
        input_ids=row.source.ids, attention_mask=(row.source.segments >= 0).long(), decoder_input_ids=row.written.ids,
        labels=row.targets.masked_fill(row.written.segments < 0, -100),
    ).loss  # fmt: skip
    loss, _, _ = denoising_loss(ours, row)
    torch.autograd.backward([expected, loss])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    gradients = {name.removeprefix("model."): p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    wanted = taken(ours, gradients)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        # Relative to the largest of the tensor, for sums of many terms cancel.
        assert (parameter.grad - wanted[name]).abs().max() <= tolerance * wanted[name].abs().max(), name


def taken(ours: Nets, public: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every parameter of ours from theirs, whose one table holds tokens and sentinels."""
    decoder = ours.parts["decoder"]
    found = {f"encoder.{name}": value for name, value in from_bart(public, ours.encoder, "encoder").items()}
    found |= {f"parts.decoder.{name}": value for name, value in from_bart(public, decoder, "decoder").items()}
    table = found["encoder.token.weight"]
    found["encoder.token.weight"] = table[:SIZE]
    if "sentinels" in ours.parts:
        found["parts.sentinels.weight"] = table[SIZE:]
    return found


@NOISES
@pytest.mark.parametrize("shape", [BART, SHAPE], ids=["bart", "rotary"])
def test_packed_documents_have_the_loss_of_separate_ones(noise: str, shape: dict[str, Any]) -> None:
    ours = nets(noise, shape)
    together = corrupted(noise, rows([9, 4, 11]))
    apart, weights = [], []
    for number in range(3):
        alone = document(together, number)
        apart.append(denoising_loss(ours, alone)[0])
        weights.append(alone.targets.numel())
    expected = sum(float(loss.detach()) * count for loss, count in zip(apart, weights, strict=True)) / sum(weights)
    assert float(denoising_loss(ours, together)[0].detach()) == pytest.approx(expected, rel=1e-12)


def document(row: Corrupted, number: int) -> Corrupted:
    """One document of a packed row, in a row of its own."""

    def alone(tokens: Tokens) -> Tokens:
        mine = tokens.segments[0] == number
        ids = tokens.ids[:, mine]
        return Tokens(ids, torch.zeros_like(ids).int(), tokens.positions[:, mine])

    mine = row.written.segments[0] == number
    return Corrupted(alone(row.source), alone(row.written), row.targets[:, mine], row.hidden[:, mine])


@NOISES
def test_loss_and_shares_are_those_of_the_logits_at_the_targets(noise: str) -> None:
    ours, row = nets(noise), corrupted(noise, rows([24], [10, 8], [7]))
    decoder = ours.parts["decoder"]
    hidden = decoder(embedded(ours, row.written.ids), row.written, read(ours, row.source), row.source)
    logits = hidden @ both_tables(ours).T
    real = row.written.segments >= 0
    told = logits.argmax(-1) == row.targets
    loss, accuracy, masked = denoising_loss(ours, row)
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(logits[real], row.targets[real]).detach()))
    assert float(accuracy) == pytest.approx(float(told[real].double().mean()))
    assert float(masked) == pytest.approx(float(told[row.hidden].double().mean()))


@NOISES
def test_what_is_written_a_token_at_a_time_is_the_likeliest_each_time(noise: str) -> None:
    ours = nets(noise)
    row = only_first(corrupted(noise, rows([20, 4], [9, 15], [5])), 24)
    told = write(ours, row.source, END, 12)
    ids = torch.cat([torch.full_like(told[:, :1], END), told[:, :-1]], 1)
    slots = torch.arange(told.shape[1]).expand_as(ids)
    again = Tokens(ids, torch.zeros_like(ids).int(), slots)
    hidden = ours.parts["decoder"](embedded(ours, ids), again, read(ours, row.source), row.source)
    assert torch.equal((hidden @ both_tables(ours).T).argmax(-1), told)


def test_a_model_that_learned_a_batch_by_heart_writes_it_back() -> None:
    torch.manual_seed(0)
    objective = Denoising()
    ours = objective.build(build_encoder(EncoderSpec.model_validate({**SHAPE, "depth": 1}), FACTS))
    tokens = rows([12], [8], [9])
    batch = Batch((tokens,), SEEDS)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=5e-3)
    for _ in range(100):
        values = objective.loss(ours, batch)
        optimizer.zero_grad()
        torch.autograd.backward(values["loss"])
        optimizer.step()
    assert float(values["masked_accuracy"]) == 1.0
    row = Corruption("infilling", 0.3, 3.0)(tokens, SEEDS, FACTS)
    told = write(ours.eval(), row.source, END, 16)
    for at in range(3):
        wanted = row.targets[at][row.written.segments[at] >= 0]
        assert torch.equal(told[at, : len(wanted)], wanted)


@NOISES
def test_every_parameter_gets_a_gradient(noise: Any) -> None:
    ours = nets(noise)
    torch.autograd.backward(
        Denoising(noise=noise, **DRAW).loss(ours, Batch((rows([24], [10, 8], [7]),), SEEDS))["loss"]
    )
    assert not [name for name, p in ours.named_parameters() if p.grad is None or not p.grad.any()]


def test_rows_without_anything_to_write_have_no_loss_and_a_gradient() -> None:
    ours = nets("span_corruption")
    loss = Denoising(noise="span_corruption").loss(ours, Batch((rows([1] * 8),), SEEDS[:1]))["loss"]
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in ours.parameters())


def test_the_decoder_may_be_of_another_depth() -> None:
    decoder = nets("infilling", decoder_depth=1).parts["decoder"]
    assert isinstance(decoder, Decoder) and len(decoder.layers) == 1
    assert len(nets("infilling").parts["decoder"].get_submodule("layers")) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"attention": "causal"}, "backbone.attention"),
        ({"window": 8}, "backbone.window"),
        ({"embedding_width": 16}, "backbone.embedding_width"),
    ],
)
def test_a_backbone_that_no_decoder_can_follow_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(SpecError) as error:
        Denoising().check(EncoderSpec.model_validate({**SHAPE, **fields}))
    assert (error.value.code, error.value.param) == ("backbone_mismatch", param)


def test_ids_are_spelled_up_to_their_end_with_sentinels_by_number() -> None:
    ids = torch.tensor([SIZE, 7, 8, SIZE + 1, 9, END, 5])
    assert spelled(ids, SIZE, END, lambda part: " ".join(f"w{each}" for each in part.tolist())) == "<0> w7 w8 <1> w9"
    assert spelled(ids[6:], SIZE, END, lambda part: f"w{part.tolist()}") == "w[5]"
