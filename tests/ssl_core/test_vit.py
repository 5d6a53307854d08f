"""Patches of pictures: shapes, kept and filled patches, positions; and equality with the public families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.encoders import build_encoder
from ssl_core.encoders.vit import ViT, sincos_positions, stretched
from ssl_core.errors import SpecError
from ssl_core.interop import matching
from ssl_core.interop.base import Public, Shape
from ssl_core.interop.hf import BY_MODEL_TYPE, FAMILIES
from ssl_core.interop.tensors import Theirs, read_json
from ssl_core.modalities.audio import AudioModality
from ssl_core.modalities.image import ImageModality
from ssl_core.spec import DatasetFacts

WIDE = {"channels": 1, "size": 16, "height": 16, "width": 24}


def vit(facts: dict[str, Any] = WIDE, **fields: Any) -> ViT:
    shape = {"name": "custom", "family": "vit", "width": 32, "depth": 2, "heads": 2, "patch_size": 4,
             "positions": "learned", "embedding_norm": False}  # fmt: skip
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate({**shape, **fields}), facts).double().eval()
    assert isinstance(encoder, ViT)
    return encoder


def pictures(count: int = 2, seed: int = 0, height: int = 16, width: int = 24) -> Tensor:
    return torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPES: list[dict[str, Any]] = [
    {},
    {"class_tokens": 1, "positions": "sincos", "pooling": "cls"},
    {"class_tokens": 2, "register_tokens": 3, "layer_scale": 0.1, "patch_bias": False},
    {"patch_stride": 2, "positions": "none", "norm": "post", "embedding_norm": True},
    {"pooling": "attention", "embedding_norm": True, "first_norm": True, "mlp": "swiglu"},
]
every_shape = pytest.mark.parametrize("fields", SHAPES, ids=str)


@every_shape
def test_it_gives_a_vector_a_patch_and_one_of_all(fields: dict[str, Any]) -> None:
    encoder = vit(**fields)
    count = encoder.grid[0] * encoder.grid[1]
    assert count == (77 if encoder.spec.patch_stride else 24)
    assert encoder.encode(pictures()).shape == (2, count, 32)
    assert encoder(pictures()).shape == (2, 32)


@every_shape
def test_patch_embeddings_are_the_convolution_of_the_same_weight(fields: dict[str, Any]) -> None:
    encoder = vit(**fields)
    expected = encoder.patch(pictures()).flatten(2).transpose(1, 2)
    assert torch.allclose(encoder.patches(pictures()), expected, atol=1e-12)


@every_shape
def test_its_own_embeddings_as_fill_change_nothing(fields: dict[str, Any]) -> None:
    encoder = vit(**fields)
    filled = encoder.encode(pictures(), fill=encoder.patches(pictures()))
    assert torch.allclose(filled, encoder.encode(pictures()), atol=1e-12)


@every_shape
def test_all_patches_kept_in_another_order_are_the_same_vectors_in_that_order(fields: dict[str, Any]) -> None:
    encoder = vit(**fields)
    count = encoder.grid[0] * encoder.grid[1]
    order = torch.stack([torch.randperm(count, generator=torch.Generator().manual_seed(row)) for row in range(2)])
    expected = encoder.encode(pictures()).gather(1, order[:, :, None].expand(-1, -1, 32))
    assert torch.allclose(encoder.encode(pictures(), keep=order), expected, atol=1e-12)


@every_shape
def test_what_is_not_kept_is_not_seen(fields: dict[str, Any]) -> None:
    encoder = vit(**fields)
    keep = torch.tensor([[0, 3], [1, 2]])
    x = pictures()
    other = x.clone()
    # The last row of patches, which neither sample keeps and no overlapping patch of the first row reaches.
    other[:, :, 12:] += 1
    assert torch.equal(encoder.encode(x, keep=keep), encoder.encode(other, keep=keep))
    assert not torch.allclose(encoder.encode(x), encoder.encode(other))


def test_kept_embeddings_of_fill_are_those_of_the_kept_patches() -> None:
    encoder, keep = vit(class_tokens=1), torch.tensor([[5, 0, 7], [2, 9, 23]])
    filled = encoder.encode(pictures(), keep=keep, fill=encoder.patches(pictures()))
    assert torch.allclose(filled, encoder.encode(pictures(), keep=keep), atol=1e-12)


@every_shape
def test_every_parameter_gets_a_gradient(fields: dict[str, Any]) -> None:
    encoder = vit(**fields)
    vectors = encoder(pictures())
    vectors.backward(torch.randn_like(vectors))
    assert not [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_class_tokens_are_given_beside_the_patches_and_pooled() -> None:
    encoder = vit(class_tokens=2, pooling="cls")
    classes, patches = encoder.read(pictures(), keep=torch.tensor([[4], [4]]))
    assert classes.shape == (2, 2, 32) and patches.shape == (2, 1, 32)
    assert torch.equal(encoder(pictures()), encoder.read(pictures())[0].mean(1))
    assert torch.equal(vit(class_tokens=2)(pictures()), encoder.encode(pictures()).mean(1))


@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_a_smaller_picture_has_stretched_positions(positions: str) -> None:
    encoder = vit(positions=positions, class_tokens=1)
    small = pictures(height=8, width=8)
    assert encoder.encode(small).shape == (2, 4, 32)
    places = encoder.position
    assert places is not None
    picture = places[1:].T.reshape(1, 32, 4, 6)
    expected = F.interpolate(picture, size=(2, 2), mode="bicubic", align_corners=False)[0].flatten(1).T
    assert torch.allclose(stretched(places[1:], (4, 6), (2, 2)), expected)


def test_positions_keep_their_numbers_in_half_precision() -> None:
    places = torch.randn(24, 8).bfloat16()
    found = stretched(places, (4, 6), (3, 3))
    assert found.dtype == torch.float32
    assert torch.equal(found, stretched(places.float(), (4, 6), (3, 3)))


def test_fixed_positions_tell_column_and_row_apart() -> None:
    places = sincos_positions(16, (3, 5))
    assert places.shape == (15, 16)
    assert torch.equal(places[2, 8:], places[0, 8:]) and not torch.equal(places[2, :8], places[0, :8])
    assert torch.equal(places[10, :8], places[0, :8]) and not torch.equal(places[10, 8:], places[0, 8:])
    assert places[7, 0] == pytest.approx(float(torch.tensor(2.0).sin()))


def test_fixed_positions_are_not_learned_but_saved() -> None:
    encoder = vit(positions="sincos", class_tokens=1)
    assert "position" in encoder.state_dict() and "position" not in dict(encoder.named_parameters())
    assert encoder.position is not None and not encoder.position[0].any()


def test_under_autocast_a_picture_with_kept_patches_is_finite_in_both_directions() -> None:
    encoder = vit(class_tokens=1, pooling="attention").float()
    with torch.autocast("cpu", torch.bfloat16):
        vectors = encoder(pictures().float()).sum() + encoder.encode(pictures().float(), torch.tensor([[1], [2]])).sum()
    vectors.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("sides", [{"size": 30}, {"size": 2}, {"size": 16, "height": 16, "width": 23}], ids=str)
def test_pictures_that_patches_do_not_fill_are_refused_by_name(sides: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="not made of patches of 4 x 4") as caught:
        vit({"channels": 1, **sides})
    assert caught.value.param == "backbone.patch_size"


def test_a_modality_refuses_them_before_anything_runs() -> None:
    pool = DatasetFacts(id="ds_p", modality="image", rows=10, width=50, height=50, channels=3)
    with pytest.raises(SpecError, match="50 x 50 are not made of patches of 4 x 4"):
        ImageModality(size=50).check(BACKBONES["vit-tiny"], pool)
    with pytest.raises(SpecError, match="16 x 16 are not made of patches of 12 x 12"):
        spec = EncoderSpec.model_validate({**BACKBONES["vit-tiny"].model_dump(), "patch_size": 12})
        AudioModality(mels=16, seconds=0.16).check(spec, pool)


def test_what_is_no_picture_or_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(TypeError, match="reads pictures"):
        vit()(torch.zeros(2, 16))
    with pytest.raises(ValueError, match="3 x 24 are smaller than a patch of 4"):
        vit()(torch.zeros(1, 1, 3, 24).double())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"positions": "rotary"}, "positions learned, sincos, none"),
        ({"pooling": "last"}, "not by last"),
        ({"pooling": "cls"}, "pooling cls needs class_tokens"),
        ({"positions": "sincos", "width": 34, "heads": 1}, "divisible by 4"),
        ({"patch_stride": 5}, "would skip pixels"),
    ],
)
def test_a_shape_that_does_not_go_together_is_refused_by_name(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        vit(**fields)


# Equality with public models, by the maps that import and export use.

TRUNK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SQUARE = {"image_size": 24, "patch_size": 8}
DINO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2, "layerscale_value": 0.3}
PUBLIC: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTModel", "ViTConfig", {**TRUNK, **SQUARE}),
    "dinov2": ("Dinov2Model", "Dinov2Config", {**DINO, **SQUARE}),
    "vit_mae": ("ViTMAEModel", "ViTMAEConfig", {**TRUNK, **SQUARE, "mask_ratio": 0.5}),
    "audio-spectrogram-transformer": (
        "ASTModel", "ASTConfig",
        {**TRUNK, "max_length": 48, "num_mel_bins": 32, "patch_size": 16, "time_stride": 10, "frequency_stride": 10},
    ),
    "clip_vision_model": ("CLIPVisionModel", "CLIPVisionConfig", {**TRUNK, **SQUARE}),
    "siglip_vision_model": ("SiglipVisionModel", "SiglipVisionConfig", {**TRUNK, **SQUARE}),
}  # fmt: skip
every_public = pytest.mark.parametrize("name", PUBLIC)


def public_pair(name: str, folder: Path, dtype: torch.dtype) -> tuple[ViT, Any]:
    """Ours and theirs with the same weights, theirs written to disk and read by our importer."""
    transformers = pytest.importorskip("transformers")
    model, config, fields = PUBLIC[name]
    torch.manual_seed(0)
    theirs: Any = getattr(transformers, model)(getattr(transformers, config)(**fields)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    public = Public(read_json(folder / "config.json"))
    family = BY_MODEL_TYPE[name]
    shape = family.read(public)
    ours = build_encoder(shape.backbone, dict(shape.facts)).eval()
    matching.load(family, ours, Theirs(folder)).check(1.0)
    assert isinstance(ours, ViT)
    return ours.to(dtype), theirs.to(dtype)


def outputs(name: str, ours: ViT, theirs: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """All tokens of both, class tokens first, and their pooled vector behind them where it is the encoder's."""
    found = torch.cat(ours.read(x), 1)
    if name == "audio-spectrogram-transformer":
        answer = theirs(input_values=x[:, 0].transpose(1, 2))
    elif name == "vit_mae":
        # Noise that rises from patch to patch keeps the first half in order.
        noise = torch.arange(9.0).expand(len(x), -1)
        answer = theirs(pixel_values=x, noise=noise)
        keep = torch.arange(4).expand(len(x), -1)
        return torch.cat(ours.read(x, keep=keep), 1), answer.last_hidden_state
    else:
        answer = theirs(pixel_values=x)
    if name == "vit":
        return found, answer.last_hidden_state
    if name == "clip_vision_model":
        # Their norm behind the layers is for the pooled vector alone.
        return torch.cat([found, ours(x)[:, None]], 1), torch.cat(
            [theirs.post_layernorm(answer.last_hidden_state), answer.pooler_output[:, None]], 1
        )
    expected = torch.cat([answer.last_hidden_state, answer.pooler_output[:, None]], 1)
    return torch.cat([found, ours(x)[:, None]], 1), expected


def close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1))


def gradients_of(theirs: nn.Module, family: Any, ours: ViT, folder: Path) -> dict[str, Tensor]:
    """Theirs by our names. Every transform of these families is a rearrangement, so it carries gradients too."""
    public = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(public.get(name, torch.zeros_like(parameter)))
    theirs.float().save_pretrained(folder)  # type: ignore[operator]
    copy = build_encoder(ours.spec, ours.facts)
    matching.load(family, copy, Theirs(folder)).check(1.0)
    return dict(copy.state_dict())


@every_public
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_equals_the_public_family_in_output_and_gradient(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    ours, theirs = public_pair(name, tmp_path / "weights", dtype)
    shape = (2, 1, 32, 48) if name == "audio-spectrogram-transformer" else (2, 3, 24, 24)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found, expected = outputs(name, ours, theirs, x)
    assert close(found, expected, 1e-5 if dtype == torch.float32 else 1e-12)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    torch.autograd.backward([(expected * direction).sum(), (found * direction).sum()])
    gradients = gradients_of(theirs, BY_MODEL_TYPE[name], ours, tmp_path / "gradients")
    for place, parameter in ours.named_parameters():
        # Files hold float32.
        assert parameter.grad is not None and close(parameter.grad.float(), gradients[place], 1e-5), place


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip_vision_model", "siglip_vision_model"])
def test_another_size_equals_the_public_family_s_interpolation(name: str, tmp_path: Path) -> None:
    ours, theirs = public_pair(name, tmp_path, torch.float32)
    x = torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = theirs(pixel_values=x) if name == "dinov2" else theirs(pixel_values=x, interpolate_pos_encoding=True)
        expected = answer.last_hidden_state
        if name == "clip_vision_model":
            expected = theirs.post_layernorm(expected)
        assert close(torch.cat(ours.read(x), 1), expected, 1e-5)


def test_fixed_positions_are_those_of_mae() -> None:
    pytest.importorskip("transformers")
    from transformers.models.vit_mae import modeling_vit_mae

    rows_first = modeling_vit_mae.build_2d_sinusoidal_position_embedding(3, 5, 32)
    assert torch.allclose(sincos_positions(32, (3, 5)), rows_first.roll(16, 1), atol=1e-6)


def test_every_family_of_interchange_is_asked_of_a_vit_and_the_first_that_has_it_is_vit() -> None:
    facts = {"channels": 3, "size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    shape = Shape(BACKBONES["vit-tiny"], ImageModality(), facts)
    assert [name for name, family in FAMILIES.items() if family.write(shape) is not None] == ["vit", "vit_mae"]
    again = FAMILIES["vit"].read(Public(FAMILIES["vit"].write(shape) or {}))
    assert again.backbone.model_copy(update={"name": "vit-tiny"}) == shape.backbone
    assert {**again.facts, "side": 32} == {**facts, "side": 32}


def test_positions_of_another_size_are_stretched_beside_the_class_token() -> None:
    spec = BACKBONES["vit-tiny"].model_copy(update={"positions": "learned", "width": 32, "depth": 1, "heads": 2})
    small, large = (ViT(spec, {"channels": 3, "size": size}) for size in (16, 32))
    assert small.position is not None and large.position is not None
    kept = small.position.detach()
    assert torch.equal(small.positions_from(kept, small.facts), kept)
    found = large.positions_from(kept, small.facts)
    assert found.shape == large.position.shape and torch.equal(found[: spec.class_tokens], kept[: spec.class_tokens])
    # As the small one reads a large picture.
    count = spec.class_tokens
    assert torch.equal(found[count:], stretched(kept[count:], small.grid, large.grid))
