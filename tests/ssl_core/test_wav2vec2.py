"""wav2vec 2.0: which frames are hidden, what they are told from, and equality of the loss with the public code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_core.backbones import BACKBONES
from ssl_core.encoders import build_encoder
from ssl_core.encoders.wave import Wave, frames_of
from ssl_core.errors import SpecError
from ssl_core.interop import matching
from ssl_core.interop.base import Public
from ssl_core.interop.hf import BY_MODEL_TYPE
from ssl_core.interop.tensors import Theirs, read_json
from ssl_core.modalities.audio import AudioModality
from ssl_core.nets import Nets
from ssl_core.objectives.wav2vec2 import Wav2Vec2
from ssl_core.quantiser import Quantiser, draw_distractors, gumbel_noise, hide_spans
from ssl_core.recipes import resolve
from ssl_core.spec import JOB_SPEC, DatasetFacts
from ssl_core.wave_contrast import Drawn, WaveContrast, wave_loss

SEEDS = torch.arange(400)
SIZES = {"num_codevector_groups": 2, "num_codevectors_per_group": 6, "codevector_dim": 16, "proj_codevector_dim": 16}


@pytest.mark.parametrize(("frames", "share", "span"), [(49, 0.65, 10), (200, 0.65, 10), (4, 0.65, 10), (12, 0.05, 64)])
def test_spans_are_hidden_and_at_least_two_frames_of_every_clip(frames: int, share: float, span: int) -> None:
    hidden = hide_spans(SEEDS, frames, share, span)
    assert hidden.shape == (400, frames)
    assert (hidden.sum(1) >= 2).all()
    assert not hidden.all(1).any() or frames < 8
    width = max(1, min(span, frames // 4))
    starts = hidden & ~torch.nn.functional.pad(hidden, (1, 0))[:, :-1]
    for row, at in starts.nonzero()[:200].tolist():
        assert hidden[row, at : at + width].all()


def test_about_half_of_the_frames_are_hidden_as_in_the_paper() -> None:
    # Section 4.2: p = 0.065 and spans of 10 hide "approximately 49% of all time steps".
    assert hide_spans(SEEDS, 750, 0.65, 10).float().mean().item() == pytest.approx(0.49, abs=0.015)


def test_distractors_are_other_hidden_frames_of_the_same_clip_each_as_likely() -> None:
    hidden = hide_spans(SEEDS[:20], 30, 0.4, 3)
    chosen = draw_distractors(SEEDS[:20], hidden, 3000)
    for row in range(20):
        places = hidden[row].nonzero()[:, 0]
        frame = int(places[1])
        counts = chosen[row, frame].bincount(minlength=30)
        others = places[places != frame]
        assert counts[others].sum() == 3000
        expected = 3000 / len(others)
        assert (counts[others] - expected).abs().max() < 6 * expected**0.5


def test_the_noise_is_gumbels() -> None:
    noise = gumbel_noise(SEEDS, 50, 2, 10).double()
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.03)


def public(folder: Path, training: bool) -> tuple[Any, Nets]:
    """Theirs and ours with the same weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    still = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop",
         "feat_quantizer_dropout"), 0.0,
    )  # fmt: skip
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=6, num_conv_pos_embedding_groups=4, vocab_size=12, **SIZES, **still,
    )  # fmt: skip
    theirs = transformers.Wav2Vec2ForPreTraining(config).train(training)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        theirs.quantizer.codevectors.normal_()
    encoder = loaded(theirs, folder)
    head = WaveContrast(encoder, (2, 6, 16))
    with torch.no_grad():
        for mine, value in heads(head, theirs):
            mine.copy_(value)
    return theirs, Nets(encoder, head=head).train(training)


def loaded(theirs: Any, folder: Path) -> Wave:
    """Our encoder with the weights of theirs, by the importer."""
    theirs.save_pretrained(folder)
    family = BY_MODEL_TYPE["wav2vec2"]
    shape = family.read(Public(read_json(folder / "config.json")))
    encoder = build_encoder(shape.backbone, dict(shape.facts))
    matching.load(family, encoder, Theirs(folder))
    assert isinstance(encoder, Wave)
    return encoder


def heads(head: WaveContrast, theirs: Any, gradient: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Our parameters beside theirs, or their gradients."""
    pairs = [
        (head.mask_token, theirs.wav2vec2.masked_spec_embed),
        (head.quantiser.entries, theirs.quantizer.codevectors),
        (head.quantiser.choose.weight, theirs.quantizer.weight_proj.weight),
        (head.quantiser.choose.bias, theirs.quantizer.weight_proj.bias),
        (head.context.weight, theirs.project_hid.weight), (head.context.bias, theirs.project_hid.bias),
        (head.code.weight, theirs.project_q.weight), (head.code.bias, theirs.project_q.bias),
    ]  # fmt: skip
    values = [(mine.grad, their.grad) if gradient else (mine, their) for mine, their in pairs]
    return [(mine, their.view_as(mine)) for mine, their in values]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_loss_and_gradients_equal_the_public_code(
    training: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, nets = public(tmp_path / "weights", training)
    waves = torch.randn(3, 8000, generator=torch.Generator().manual_seed(1))
    drawn = Drawn.of(nets, waves, torch.arange(3), (0.65, 10), 20)

    def choice(logits: Tensor, tau: float, hard: bool) -> Tensor:
        """torch's, with our noise in place of its own."""
        assert hard
        soft = ((logits + drawn.noise.view_as(logits)) / tau).softmax(-1)
        one = torch.zeros_like(logits).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return one - soft.detach() + soft

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", choice)
    frames = frames_of(nets.encoder.spec, 8000)
    flat = drawn.distractors + torch.arange(3)[:, None, None] * frames
    answer = theirs(waves, mask_time_indices=drawn.hidden, sampled_negative_indices=flat)
    found = wave_loss(nets, waves, drawn, 0.1, 0.1)
    count = drawn.hidden.sum()
    torch.testing.assert_close(found["loss"] * count, answer.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(found["codes"], answer.codevector_perplexity, rtol=1e-5, atol=0)

    (answer.loss / count).backward()
    found["loss"].backward()
    head = nets.parts["head"]
    assert isinstance(head, WaveContrast)
    for mine, their in heads(head, theirs, gradient=True) if training else []:
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    expected = dict(loaded(theirs, tmp_path / "gradients").named_parameters())
    for name, parameter in nets.encoder.named_parameters():
        scale = float(expected[name].detach().abs().max())
        torch.testing.assert_close(parameter.grad, expected[name].detach(), rtol=1e-4, atol=1e-4 * scale + 1e-7)


def test_the_choice_of_entries_gets_harder_with_progress() -> None:
    objective = Wav2Vec2()
    encoder = build_encoder(BACKBONES["audio-wave-tiny"], {"samples": 6400})
    nets = objective.build(encoder)
    quantiser = nets.parts["head"].quantiser
    assert isinstance(quantiser, Quantiser)
    told = []
    for progress in (0.0, 0.5, 1.0):
        objective.after_step(nets, progress)
        told.append(round(float(quantiser.temperature), 6))
    assert told == [2.0, 1.0, 0.5]
    assert "parts.head.quantiser.temperature" in nets.state_dict()


def test_a_window_of_too_few_frames_is_refused_by_name() -> None:
    encoder = build_encoder(BACKBONES["audio-wave-tiny"], {"samples": 500})
    with pytest.raises(SpecError) as caught:
        Wav2Vec2().build(encoder)
    assert (caught.value.code, caught.value.param) == ("encoder_does_not_fit", "modality.seconds")


@pytest.mark.parametrize("fields", [{"code_width": 33}, {"gumbel_start": 0.5, "gumbel_end": 1.0}])
def test_numbers_that_do_not_go_together_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"code_width|gumbel_end"):
        Wav2Vec2.model_validate(fields)


def test_its_recipe_asks_for_waveforms() -> None:
    sent = JOB_SPEC.validate_python({"type": "pretrain", "objective": {"name": "wav2vec2"}, "dataset": "ds_a"})
    numbers = {"sample_rate": 8000, "usual_milliseconds": 660}
    resolved = resolve(sent, DatasetFacts(id="ds_a", modality="audio", rows=100, numbers=numbers))
    assert isinstance(resolved.modality, AudioModality)
    assert (resolved.modality.representation, resolved.modality.sample_rate) == ("waveform", 8000)
    assert resolved.backbone is not None and resolved.backbone.name == "audio-wave-tiny"
