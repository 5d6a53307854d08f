"""MAE against the public implementation, I-JEPA against its formula: same weights, same masks, loss and gradients."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.errors import SpecError
from ssl_core.modalities.image import ImageModality
from ssl_core.nets import Nets
from ssl_core.patch_predictor import PatchPredictor, masked_pixel_loss, patch_encoder, predictor_spec, reconstruct
from ssl_core.patch_sizes import fitted_vit
from ssl_core.patches import Blocks, hide_at_random, patchify, take, unpatchify
from ssl_core.rng import uniform
from ssl_core.teacher import teacher_of
from tests.ssl_core.test_image_objectives import gradients
from tests.ssl_core.test_objectives import image_encoder, objective

SEEDS = torch.arange(5)
DEPTH, WIDTH, DECODER = 2, 32, {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}


def vit(side: int = 16, **fields: Any) -> Encoder:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "name": "custom", "family": "vit", "width": WIDTH, "depth": DEPTH, "heads": 4, "patch_size": 4,
        "class_tokens": 1, "positions": "sincos", "embedding_norm": False, "norm_epsilon": 1e-6,
    }  # fmt: skip
    return build_encoder(EncoderSpec(**{**shape, **fields}), {"channels": 3, "size": side})


def pictures(side: int = 16) -> Tensor:
    return torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(3))


def same(found: Tensor, expected: Tensor, scale: float) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * scale)


def layer_of(theirs: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A layer of the public model under our names; works for weights and for gradients."""
    made: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        attention = f"{prefix}.attention"
        made[f"attention.qkv.{kind}"] = torch.cat([theirs[f"{attention}.{part}_proj.{kind}"] for part in "qkv"])
        made[f"attention.out.{kind}"] = theirs[f"{attention}.o_proj.{kind}"]
        made[f"attention_norm.{kind}"] = theirs[f"{prefix}.layernorm_before.{kind}"]
        made[f"feed_forward_norm.{kind}"] = theirs[f"{prefix}.layernorm_after.{kind}"]
        made[f"feed_forward.up.{kind}"] = theirs[f"{prefix}.mlp.fc1.{kind}"]
        made[f"feed_forward.down.{kind}"] = theirs[f"{prefix}.mlp.fc2.{kind}"]
    return made


def ours_from(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every trained tensor of a public ViTMAE under our names."""
    made = {
        "encoder.class_token": theirs["vit.embeddings.cls_token"][0],
        "parts.decoder.mask_token": theirs["decoder.mask_token"][0, 0],
    }
    names = {
        "encoder.patch": "vit.embeddings.patch_embeddings.projection", "encoder.final_norm": "vit.layernorm",
        "parts.decoder.embed": "decoder.decoder_embed", "parts.decoder.final_norm": "decoder.decoder_norm",
        "parts.decoder.predict": "decoder.decoder_pred",
    }  # fmt: skip
    for mine, name in names.items():
        made |= {f"{mine}.{kind}": theirs[f"{name}.{kind}"] for kind in ("weight", "bias")}
    for at in range(DEPTH):
        for mine, name in (("encoder", "vit.layers"), ("parts.decoder", "decoder.decoder_layers")):
            made |= {f"{mine}.layers.{at}.{key}": value for key, value in layer_of(theirs, f"{name}.{at}").items()}
    return made


def fill_positions(table: Tensor) -> None:
    """Made from a config alone, the public model leaves its fixed positions zero; its weights have the column first."""
    reference = importlib.import_module("transformers.models.vit_mae.modeling_vit_mae")
    half = table.shape[1] // 2
    made = reference.build_2d_sinusoidal_position_embedding(4, 4, 2 * half, cls_token=True)
    table.copy_(torch.cat([made[:, half:], made[:, :half]], 1))


@pytest.mark.parametrize("normalise", [True, False])
def test_mae_equals_the_public_implementation(normalise: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=4, intermediate_size=4 * WIDTH, image_size=16,
        patch_size=4, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, norm_pix_loss=normalise, layer_norm_eps=1e-6, mask_ratio=0.75,
    )  # fmt: skip
    reference = transformers.ViTMAEForPreTraining(config).eval()
    for table in (reference.vit.embeddings.position_embeddings, reference.decoder.decoder_pos_embed):
        fill_positions(table.data[0])
    mae = objective("mae", normalise=normalise, **DECODER)
    nets = mae.build(vit()).eval()
    weights = dict(reference.named_parameters())
    missing = nets.load_state_dict({k: v.detach() for k, v in ours_from(weights).items()}, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"encoder.position"}  # fixed, not trained
    loss = mae.loss(nets, Batch((pictures(),), SEEDS))["loss"]
    expected = reference(pictures(), noise=uniform(SEEDS, 16, 301)).loss
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    expected.backward()
    theirs = ours_from({name: p.grad for name, p in weights.items() if p.grad is not None})
    found = gradients(loss, nets)
    assert found.keys() == theirs.keys()
    scale = max(float(value.abs().max()) for value in theirs.values())
    for name, value in theirs.items():
        same(found[name], value, scale)


def test_the_encoder_of_mae_computes_the_visible_patches_alone() -> None:
    mae = objective("mae", **DECODER)
    nets = mae.build(vit())
    seen: list[int] = []
    nets.encoder.get_submodule("layers.0").register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    mae.loss(nets, Batch((pictures(),), SEEDS))
    assert seen == [1 + 4]


def test_what_is_hidden_reaches_the_prediction_by_no_way() -> None:
    nets = objective("mae", **DECODER).build(vit()).eval()
    keep, hide = hide_at_random(SEEDS, 16, 0.75)
    changed = patchify(pictures(), 4)
    changed.scatter_(1, hide[:, :, None].expand(-1, -1, 48), 100.0)
    encoder = patch_encoder(nets.encoder)
    told = []
    for patches in (patchify(pictures(), 4), changed):
        read = encoder.read(unpatchify(patches, 4, (16, 16)), keep)
        told.append(nets.parts["decoder"](torch.cat(read, 1), keep, hide))
    assert torch.equal(told[0], told[1])


def test_masked_pixels_serve_spectrograms_of_any_shape() -> None:
    torch.manual_seed(0)
    spec = vit().spec
    encoder = build_encoder(spec, {"channels": 1, "size": 8, "height": 8, "width": 24})
    decoder = PatchPredictor(WIDTH, predictor_spec(16, 1, 2), (2, 6), 16)
    nets = Nets(encoder, decoder=decoder)
    values = masked_pixel_loss(nets, torch.randn(5, 1, 8, 24), SEEDS, 0.8, True)
    values["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in nets.parameters())
    assert float(values["loss"].detach()) == pytest.approx(1.0, abs=0.3)


def test_explained_is_one_for_a_perfect_decoder() -> None:
    class Oracle(nn.Module):
        def forward(self, seen: Tensor, keep: Tensor, hide: Tensor) -> Tensor:
            return patchify(pictures(), 4).gather(1, hide[:, :, None].expand(-1, -1, 48))

    nets = Nets(vit(), decoder=Oracle())
    values = masked_pixel_loss(nets, pictures(), SEEDS, 0.75, False)
    assert float(values["loss"]) == pytest.approx(0.0, abs=1e-6)
    assert float(values["explained"]) == pytest.approx(1.0, abs=1e-6)
    _, made = reconstruct(nets, pictures(), SEEDS, 0.75, False)
    assert torch.equal(made, pictures())


@pytest.mark.parametrize("normalise", [True, False])
def test_a_reconstruction_keeps_what_was_seen_and_the_rest_is_the_decoders(normalise: bool) -> None:
    nets = objective("mae", normalise=normalise, **DECODER).build(vit()).eval()
    seen, made = (patchify(part, 4) for part in reconstruct(nets, pictures(), SEEDS, 0.75, normalise))
    keep, hide = hide_at_random(SEEDS, 16, 0.75)
    true = patchify(pictures(), 4)
    assert torch.equal(take(made, keep), take(true, keep)) and torch.equal(take(seen, keep), take(true, keep))
    assert not bool(take(seen, hide).any())
    # The loss is the error of the hidden patches, in units of their own deviation where they are normalised.
    error = (take(made, hide) - take(true, hide)).square()
    if normalise:
        error = error / (take(true, hide).var(-1, keepdim=True) + 1e-6)
    loss = masked_pixel_loss(nets, pictures(), SEEDS, 0.75, normalise)["loss"]
    assert float(error.detach().mean()) == pytest.approx(float(loss.detach()), rel=1e-4)


IJEPA = {"predictor_width": 24, "predictor_depth": 1, "predictor_heads": 2}


def test_ijepa_tells_the_normalised_patches_of_the_teacher_block_by_block() -> None:
    ijepa = objective("ijepa", **IJEPA)
    nets = ijepa.build(vit(32, class_tokens=0)).eval()
    for parameter in teacher_of(nets).parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = pictures(32)
    context, targets = Blocks.of((8, 8), 4, (0.15, 0.2), 1.5).draw(SEEDS)
    whole: Callable[[Tensor], Tensor] = patch_encoder(teacher_of(nets).copies["encoder"]).encode
    wanted = whole(x).detach()
    wanted = (wanted - wanted.mean(-1, keepdim=True)) / (wanted.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    terms = []
    for sample in range(5):
        seen = nets.encoder.encode(x[sample : sample + 1], keep=context[sample : sample + 1])
        for block in targets[sample]:
            told = nets.parts["predictor"](seen, context[sample : sample + 1], block[None])[0]
            distance = told - wanted[sample, block]
            terms.append(torch.where(distance.abs() < 1, 0.5 * distance**2, distance.abs() - 0.5))
    expected = torch.stack(terms).mean()
    loss = ijepa.loss(nets, Batch((x,), SEEDS))["loss"]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found, theirs = gradients(loss, nets), gradients(expected, nets)
    scale = max(float(value.abs().max()) for value in theirs.values())
    for name, value in theirs.items():
        same(found[name], value, scale)


def test_the_student_of_ijepa_computes_its_context_alone() -> None:
    ijepa = objective("ijepa", **IJEPA)
    nets = ijepa.build(vit(32))
    seen: list[int] = []
    nets.encoder.get_submodule("layers.0").register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    ijepa.loss(nets, Batch((pictures(32),), SEEDS))
    assert seen == [1 + 16]


def test_the_momentum_of_ijepa_rises_evenly() -> None:
    ijepa = objective("ijepa", momentum=0.9, **IJEPA)
    nets = ijepa.build(vit(32))
    for progress, wanted in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        ijepa.after_step(nets, progress)
        assert float(teacher_of(nets).momentum) == pytest.approx(wanted)


@pytest.mark.parametrize(("name", "fields"), [("mae", DECODER), ("ijepa", IJEPA)])
def test_in_bf16_the_loss_is_nearly_that_of_fp32(name: str, fields: dict[str, Any]) -> None:
    one = objective(name, **fields)
    nets, batch = one.build(vit(32)), Batch((pictures(32),), SEEDS)
    exact = float(one.loss(nets, batch)["loss"].detach())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = one.loss(nets, batch)["loss"]
    assert rounded.dtype == torch.float32
    assert float(rounded.detach()) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("name", ["mae", "ijepa"])
def test_overlapping_patches_and_conv_nets_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="patch_stride") as caught:
        objective(name).build(vit(patch_stride=2))
    assert caught.value.param == "backbone.patch_stride"
    with pytest.raises(TypeError, match="vit"):
        objective(name).build(image_encoder())


def test_too_few_patches_for_the_blocks_are_refused() -> None:
    with pytest.raises(SpecError, match="4 blocks leave too little of 2 x 2 patches"):
        objective("ijepa").build(vit(8))


@pytest.mark.parametrize(
    ("sides", "patch"), [((224, 224), 16), ((64, 64), 8), ((32, 32), 4), ((8, 8), 1), ((96, 96), 12), ((64, 128), 8)]
)
def test_the_recipe_cuts_pictures_into_64_patches_or_more(sides: tuple[int, int], patch: int) -> None:
    assert fitted_vit("vit-tiny", *sides).patch_size == patch


@pytest.mark.parametrize(
    ("name", "queue", "family", "patch", "classes"),
    [
        ("mae", "cpu", "vit", 4, 1), ("mae", "gpu", "vit", 4, 1), ("ijepa", "cpu", "vit", 4, 0),
        ("dino", "gpu", "vit", 4, 1), ("dino", "cpu", "convnet", 16, 0),
    ],
)  # fmt: skip
def test_the_recipe_names_an_encoder_that_fits(name: str, queue: str, family: str, patch: int, classes: int) -> None:
    spec = objective(name).backbone(ImageModality(size=32), queue)
    assert (spec.family, spec.patch_size, spec.class_tokens) == (family, patch, classes)
    assert EncoderSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mae", {"mask_ratio": 1.0}), ("mae", {"decoder_width": 100}), ("ijepa", {"target_min": 0.3}),
        ("ijepa", {"predictor_width": 50}), ("ijepa", {"targets": 0}),
    ],
)  # fmt: skip
def test_a_hyperparameter_out_of_bounds_is_refused_by_name(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        objective(name, **fields)
