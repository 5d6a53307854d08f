"""Waveforms: frames, padding, filled frames; and equality with wav2vec 2.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.encoders import build_encoder
from ssl_core.encoders.wave import Wave, frames_of
from ssl_core.errors import SpecError
from ssl_core.estimates import encoder_parameters, memory_bytes
from ssl_core.interop import matching
from ssl_core.interop.base import Public, Shape
from ssl_core.interop.hf import BY_MODEL_TYPE, FAMILIES
from ssl_core.interop.tensors import Theirs, read_json
from ssl_core.modalities.audio import AudioModality
from ssl_core.spec import DatasetFacts

FACTS = {"samples": 800, "sample_rate": 2000}
SHAPES: list[dict[str, Any]] = [
    {"embedding_norm": False},
    {"norm": "post", "stem_norm": "layer", "stem_bias": True, "position_kernel": 5, "stem": "medium"},
    {"positions": "none", "mlp": "swiglu", "layer_scale": 0.1},
]
every_shape = pytest.mark.parametrize("fields", SHAPES, ids=str)


def wave(**fields: Any) -> Wave:
    shape = {"name": "custom", "family": "wave", "width": 32, "depth": 2, "heads": 2, "positions": "convolution",
             "stem_width": 16, **fields}  # fmt: skip
    if shape["positions"] == "convolution":
        shape = {"position_kernel": 4, "position_groups": 4, **shape}
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate(shape), FACTS).double().eval()
    assert isinstance(encoder, Wave)
    return encoder


def clips(samples: int = 800, seed: int = 0) -> Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_shape
def test_it_gives_a_vector_a_frame_and_their_mean(fields: dict[str, Any]) -> None:
    encoder = wave(**fields)
    frames = encoder.encode(clips())
    assert frames.shape == (2, 4 if encoder.spec.stem == "medium" else 9, 32)
    assert torch.equal(encoder(clips()), frames.mean(1))


def test_a_stem_has_the_stride_that_it_says() -> None:
    for stem, stride in (("small", 80), ("medium", 160), ("large", 320)):
        spec = BACKBONES["audio-wave-base"].model_copy(update={"stem": stem})
        assert frames_of(spec, 16_000 + stride) - frames_of(spec, 16_000) == 1
    assert frames_of(BACKBONES["audio-wave-base"], 16_000) == 49


@every_shape
def test_its_own_embeddings_as_fill_change_nothing_and_need_no_waveform(fields: dict[str, Any]) -> None:
    encoder = wave(**fields)
    fill = encoder.project(encoder.features(clips()))
    assert torch.equal(fill, encoder.patches(clips()))
    assert torch.equal(encoder.encode(torch.zeros(2, 0), fill=fill), encoder.encode(clips()))


@every_shape
def test_padding_behind_a_clip_is_not_seen(fields: dict[str, Any]) -> None:
    encoder = wave(**fields)
    if encoder.spec.stem_norm == "group":
        # A group norm over time sees all samples, as in the paper; the trunk behind it must not.
        features = encoder.patches(clips())
        noisy = features.clone()
        noisy[:, 5:] += 1
        lengths = torch.tensor([480, 480])
        assert encoder.real(lengths, 9).sum(1).tolist() == [5, 5]
        one, other = (encoder.encode(clips(), fill=fill, lengths=lengths)[:, :5] for fill in (features, noisy))
        alone = encoder.encode(clips(), fill=features[:, :5])
        assert torch.equal(one, other) and torch.allclose(one, alone, atol=1e-12)
    else:
        padded = torch.cat([clips(), torch.randn(2, 320).double()], 1)
        lengths = torch.tensor([800, 800])
        assert torch.allclose(encoder(padded, lengths=lengths), encoder(clips()), atol=1e-12)


def test_a_clip_of_padding_alone_stays_finite() -> None:
    encoder = wave(embedding_norm=False)
    vectors = encoder(clips(), lengths=torch.tensor([800, 40]))
    vectors.sum().backward()
    assert vectors.isfinite().all() and not vectors[1].any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@every_shape
def test_what_is_not_kept_is_not_seen(fields: dict[str, Any]) -> None:
    encoder, keep = wave(**fields), torch.tensor([[2, 0], [1, 3]])
    fill = encoder.patches(clips())
    kept = encoder.encode(clips(), keep=keep, fill=fill)
    assert kept.shape == (2, 2, 32)
    other = fill + 1
    other = other.scatter(1, keep[:, :, None].expand(-1, -1, 32), fill.gather(1, keep[:, :, None].expand(-1, -1, 32)))
    assert torch.equal(encoder.encode(clips(), keep=keep, fill=other), kept)
    order = torch.arange(fill.shape[1]).expand(2, -1)
    assert torch.allclose(encoder.encode(clips(), keep=order), encoder.encode(clips()), atol=1e-12)


@every_shape
def test_every_parameter_gets_a_gradient(fields: dict[str, Any]) -> None:
    encoder = wave(**fields)
    vectors = encoder(clips())
    vectors.backward(torch.randn_like(vectors))
    assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_weight_of_positions_starts_with_the_length_of_its_direction() -> None:
    position = wave(embedding_norm=False).position
    assert position is not None
    assert torch.allclose(position.weight(), position.direction, atol=1e-6)


def test_clips_shorter_than_a_frame_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match="clips of 100 samples are shorter than a frame of the large stem"):
        build_encoder(BACKBONES["audio-wave-base"], {"samples": 100})
    with pytest.raises(ValueError, match="clips of 100 samples are shorter"):
        wave(embedding_norm=False)(torch.zeros(1, 100).double())
    with pytest.raises(TypeError, match="reads waveforms"):
        wave(embedding_norm=False)(torch.zeros(1, 1, 800).double())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"positions": "rotary"}, "positions convolution, none"),
        ({"pooling": "cls"}, "pools by mean"),
        ({"position_groups": 5}, "divisible by position_groups"),
    ],
)
def test_a_shape_that_does_not_go_together_is_refused_by_name(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        wave(**fields)


def test_a_modality_of_spectrograms_is_told_that_it_reads_samples() -> None:
    pool = DatasetFacts(id="ds_p", modality="audio", rows=10)
    with pytest.raises(SpecError, match="a wave reads waveform"):
        AudioModality().check(BACKBONES["audio-wave-tiny"], pool)


@pytest.mark.parametrize("name", ["audio-wave-tiny", "audio-wave-base", "vit-tiny", "vit-small"])
def test_the_predicted_parameters_are_within_three_percent(name: str) -> None:
    modality = AudioModality(representation="waveform" if "wave" in name else "log_mel")
    with torch.device("meta"):
        encoder = build_encoder(BACKBONES[name], modality.shape())
    real = sum(parameter.numel() for parameter in encoder.parameters())
    assert encoder_parameters(BACKBONES[name], modality) == pytest.approx(real, rel=0.03)


def test_longer_clips_need_more_memory() -> None:
    short, long = (AudioModality(representation="waveform", seconds=seconds) for seconds in (1.0, 4.0))
    row = BACKBONES["audio-wave-base"]
    needed = [memory_bytes(row, modality, 16, ("plain",), half=False) for modality in (short, long)]
    assert needed[1] > 1.5 * needed[0]


# Equality with the public model, by the map that import and export use.

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 4, "vocab_size": 12,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
    "odd kernel": {"num_conv_pos_embeddings": 5},
}


def public_pair(kind: str, folder: Path, dtype: torch.dtype) -> tuple[Wave, Any]:
    """Ours and theirs with the same weights, theirs written to disk and read by our importer."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**{**SMALL, **KINDS[kind]}, apply_spec_augment=False)
    theirs: Any = transformers.Wav2Vec2Model(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    shape = BY_MODEL_TYPE["wav2vec2"].read(Public(read_json(folder / "config.json")))
    ours = build_encoder(shape.backbone, dict(shape.facts)).eval()
    matching.load(BY_MODEL_TYPE["wav2vec2"], ours, Theirs(folder)).check(1.0)
    assert isinstance(ours, Wave)
    return ours.to(dtype), theirs.to(dtype)


def close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1))


def gradients_of(theirs: Any, ours: Wave, folder: Path) -> dict[str, Tensor]:
    """Theirs by our names. Every transform of the family is a rearrangement, so it carries gradients too."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    theirs.float().save_pretrained(folder)
    copy = build_encoder(ours.spec, ours.facts)
    matching.load(BY_MODEL_TYPE["wav2vec2"], copy, Theirs(folder)).check(1.0)
    return dict(copy.state_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_equals_wav2vec_2_in_output_and_gradient(
    kind: str, padded: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    ours, theirs = public_pair(kind, tmp_path / "weights", dtype)
    x = torch.randn(3, 4000, generator=torch.Generator().manual_seed(1)).to(dtype)
    lengths = torch.tensor([4000, 2500, 1300]) if padded else torch.tensor([4000] * 3)
    mask = (torch.arange(4000) < lengths[:, None]).long() if padded else None
    answer = theirs(input_values=x.clone(), attention_mask=mask)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    assert close(ours.features(x), answer.extract_features, tolerance)
    found = ours.encode(x, lengths=lengths if padded else None)
    real = ours.real(lengths, found.shape[1])
    found, expected = found[real], answer.last_hidden_state[real]
    assert close(found, expected, tolerance)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    torch.autograd.backward([(expected * direction).sum(), (found * direction).sum()])
    gradients = gradients_of(theirs, ours, tmp_path / "gradients")
    for place, parameter in ours.named_parameters():
        # Files hold float32; what goes through seven convolutions is rounded there too.
        assert parameter.grad is not None and close(parameter.grad.float(), gradients[place], 5e-5), place


def test_masked_features_give_what_wav_2_vec_2_gives(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours, theirs = public_pair("base", tmp_path, torch.float64)
    theirs.config.apply_spec_augment = True
    assert isinstance(theirs, transformers.Wav2Vec2Model)
    x, hidden = clips(4000), torch.zeros(2, 12, dtype=torch.bool)
    hidden[0, 2:5] = hidden[1, 7:] = True
    expected = theirs(input_values=x.clone(), mask_time_indices=hidden).last_hidden_state
    fill = torch.where(hidden[:, :, None], theirs.masked_spec_embed, ours.project(ours.features(x)))
    assert close(ours.encode(x, fill=fill), expected, 1e-10)


def test_a_public_file_that_names_the_weight_norm_as_it_was_once_is_read_too(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    first, _ = public_pair("base", tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    conv = "encoder.pos_conv_embed.conv."
    for old, new in (
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
    ):
        tensors[conv + old] = tensors.pop(conv + new)
    save_file(tensors, tmp_path / "model.safetensors")
    second = build_encoder(first.spec, first.facts)
    matching.load(BY_MODEL_TYPE["wav2vec2"], second, Theirs(tmp_path)).check(1.0)
    assert first.position is not None
    assert torch.equal(second.state_dict()["position.direction"], first.position.direction)


def test_every_family_of_interchange_is_asked_of_a_wave_and_only_wav2vec_2_has_it() -> None:
    modality = AudioModality(representation="waveform", sample_rate=8000, seconds=0.8)
    shape = Shape(BACKBONES["audio-wave-tiny"], modality, {**modality.shape(), "mean": 0.0, "std": 1.0})
    assert [name for name, family in FAMILIES.items() if family.write(shape) is not None] == ["wav2vec2"]
    again = FAMILIES["wav2vec2"].read(Public(FAMILIES["wav2vec2"].write(shape) or {}))
    assert again.backbone.model_copy(update={"name": "audio-wave-tiny"}) == shape.backbone
    assert again.facts == shape.facts
