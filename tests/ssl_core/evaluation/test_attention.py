"""Attention maps: the weights that the layer really mixes with, and the pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.context import MemoryContext
from ssl_core.encoders import build_encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.encoders.vit import ViT
from ssl_core.evaluation.attention import heat_map, last_attention, tell, weights
from ssl_core.evaluation.samples import Show
from ssl_core.layers import Attention, rotary_angles
from tests.ssl_core import datasets
from tests.ssl_core.evaluation.test_samples import shown
from tests.ssl_core.toys import ENCODERS

SPEC: dict[str, Any] = {"name": "custom", "family": "transformer", "width": 32, "depth": 2, "heads": 4}
FACTS = {"vocab_size": 50, "max_length": 12, "pad_id": 0, "mask_id": 4}


def sequence() -> Tokens:
    ids = torch.randint(5, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([[0] * 12, [0] * 7 + [-1] * 5], dtype=torch.int32)
    return Tokens(ids, segments, torch.arange(12).expand(2, -1))


@pytest.mark.parametrize(
    "shape",
    [{}, {"key_value_heads": 2}, {"attention": "causal"}, {"window": 4}],
    ids=["full", "grouped", "causal", "window"],
)
def test_values_mixed_with_the_map_are_what_the_layer_gives(shape: dict[str, Any]) -> None:
    torch.manual_seed(0)
    spec = EncoderSpec.model_validate({**SPEC, **shape})
    attention, x = Attention(spec).double(), torch.randn(2, 12, 32, dtype=torch.float64)
    rotary = rotary_angles(torch.arange(12).expand(2, -1), 8, 10_000.0, torch.float64)
    mask = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.5 if "window" in shape else None
    mask = None if mask is None else mask | torch.eye(12, dtype=torch.bool)
    causal = shape.get("attention") == "causal"
    map_ = weights(attention, x, mask, rotary, causal)
    shared = attention.shared
    values = attention.qkv(x)[..., -8 * shared :].unflatten(-1, (shared, 8)).transpose(1, 2)
    mixed = (map_ @ values.repeat_interleave(4 // shared, 1)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.out(mixed), attention(x, mask, rotary, causal), rtol=1e-9, atol=1e-12)


def test_a_text_looks_neither_at_padding_nor_where_causal_ahead() -> None:
    encoder = build_encoder(EncoderSpec.model_validate({**SPEC, "attention": "causal"}), FACTS).eval()
    assert isinstance(encoder, Transformer)
    map_ = last_attention(encoder, sequence())
    assert map_.shape == (2, 4, 12, 12)
    torch.testing.assert_close(map_.sum(-1), torch.ones(2, 4, 12))
    assert (map_.triu(1) == 0).all() and (map_[1, :, :7, 7:] == 0).all()


def test_looking_leaves_the_encoder_as_it_was() -> None:
    encoder = build_encoder(EncoderSpec.model_validate(SPEC), FACTS).eval()
    assert isinstance(encoder, Transformer)
    before = encoder.encode(sequence())
    last_attention(encoder, sequence())
    assert torch.equal(encoder.encode(sequence()), before)
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_the_class_token_s_map_equals_the_public_library_s(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from ssl_core.interop import hf

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=12, patch_size=4
    )
    config._attn_implementation = "eager"
    theirs = transformers.ViTModel(config, add_pooling_layer=False).double().eval()
    spec = {"name": "custom", "family": "vit", "width": 32, "depth": 2, "heads": 4, "mlp_ratio": 2.0, "patch_size": 4,
            "class_tokens": 1, "positions": "learned", "embedding_norm": False, "norm_epsilon": 1e-12}  # fmt: skip
    ours = build_encoder(EncoderSpec.model_validate(spec), {"channels": 3, "size": 12}).double().eval()
    assert isinstance(ours, ViT)
    theirs.save_pretrained(tmp_path)
    of = load_file(tmp_path / "model.safetensors")
    rows = hf.FAMILIES["vit"].rows(ours.spec)
    ours.load_state_dict({row.ours: row.how.ours([of[name] for name in row.theirs]) for row in rows})
    pictures = 5 * torch.randn(2, 3, 12, 12, dtype=torch.float64)
    expected = theirs(pictures, output_attentions=True).attentions[-1]
    torch.testing.assert_close(last_attention(ours, pictures), expected, rtol=1e-6, atol=1e-9)


def test_a_heat_map_is_darkest_where_most_is_looked_at() -> None:
    values = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.25, 0.25], [0.3, 0.3, 0.4]])
    picture = np.asarray(heat_map(values, ["a", "日本", "_"])).astype(float)
    side = 18
    cells = picture[-3 * side :, -3 * side :].reshape(3, side, 3, side).mean((1, 3))
    np.testing.assert_allclose(cells, 255 - np.round(255 * values.numpy() / 0.9), atol=1)
    assert (picture[: -3 * side, -3 * side : -2 * side] < 200).any()  # the first name, above its column
    assert (picture[-side:, : -3 * side] < 200).any()  # the last one, left of its row


@pytest.mark.parametrize("objective", ["simclr", "mae"])
def test_a_run_on_patches_shows_where_they_look(tmp_path: Path, objective: str) -> None:
    backbone = {**ENCODERS["vit"], "class_tokens": 0 if objective == "mae" else 1}
    found = shown(tmp_path / "run", objective, datasets.IMAGE, backbone, datasets.image_dataset(tmp_path / "data"))
    with Image.open(found["attention"]) as picture:
        # The picture, the mean and two heads, eightfold.
        assert picture.width == 4 * 8 * 8 and np.asarray(picture)[:, 64:].std() > 10


def test_long_spectrograms_stand_beside_their_mean_map_alone(tmp_path: Path) -> None:
    spec = {**ENCODERS["vit"], "patch_size": 16, "patch_stride": 10, "class_tokens": 2, "positions": "learned"}
    facts = {"channels": 1, "size": 32, "height": 32, "width": 900}
    encoder = build_encoder(EncoderSpec.model_validate(spec), facts).eval()
    tell(encoder, (torch.randn(2, 1, 32, 900),), Show(MemoryContext(tmp_path), tmp_path, 1))
    with Image.open(tmp_path / "samples" / "attention.png") as picture:
        assert picture.size == (2 * 2 * 900, 2 * 2 * 32)


def test_an_encoder_without_attention_shows_none(tmp_path: Path) -> None:
    encoder = build_encoder(EncoderSpec.model_validate(ENCODERS["convnet"]), {"channels": 3, "size": 8}).eval()
    tell(encoder, (torch.randn(2, 3, 8, 8),), Show(MemoryContext(tmp_path), tmp_path, 1))
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize("objective", ["mlm", "next_token"])
@pytest.mark.parametrize("modality", ["text", "protein"])
def test_a_run_on_tokens_shows_a_heat_map(tmp_path: Path, objective: str, modality: str) -> None:
    setting, write = {"text": (datasets.TEXT, datasets.text_dataset),
                      "protein": (datasets.PROTEIN, datasets.protein_dataset)}[modality]  # fmt: skip
    kind = "causal" if objective == "next_token" else "full"
    backbone = {**datasets.TINY_TEXT, "attention": kind, "embedding_norm": False}
    found = shown(tmp_path / "run", objective, setting, backbone, write(tmp_path / "data"))
    with Image.open(found["attention"]) as picture:
        assert picture.width == picture.height and (picture.width - 110) % 18 == 0
        assert np.asarray(picture)[110:, 110:].min() == 0
