"""SigLIP (Zhai et al. 2023, https://arxiv.org/abs/2303.15343), both towers: `SiglipModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, inexpressible
from ssl_core.interop.hf import _pairs, siglip_vision_model
from ssl_core.interop.transforms import Reshaped

_USUAL = {
    "hidden_size": 768, "heads": 12, "intermediate_size": 3072, "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip
_SCALAR = Reshaped((), (1,))


def _tower(public: Public) -> EncoderSpec:
    return _pairs.text_tower(public, _USUAL)


def read(public: Public) -> Shape:
    """Texts are filled up to the longest one that is read, the fillers are read too, and the last one is its vector."""
    image = siglip_vision_model.read(_pairs.side(public, "vision"))
    words = _pairs.side(public, "text")
    text = _pairs.text_side(words, _tower(words), 32_000)
    width = words.config.get("projection_size") or text.backbone.width
    backbone = {"width": width, "projection": "text"}
    return _pairs.pair_shape(image, text, backbone, {"special_tokens": True, "filler": _filler(public)})


def _filler(public: Public) -> str:
    """What their tokenizer pads with: the entry that ends a text, where the folder does not say."""
    told = public.extras.get("tokenizer_config.json", {}).get("pad_token")
    name = told.get("content") if isinstance(told, Mapping) else told
    return name if isinstance(name, str) and name else "</s>"


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where both towers are theirs."""
    spec = shape.backbone
    if spec.family != "dual" or spec.projection != "text":
        return None
    image, text, modality = _pairs.towers(shape, "SigLIP")
    if not modality.filler or modality.max_length != text.backbone.max_positions:
        raise inexpressible("SigLIP", "its texts are filled up to the last position: modality.filler")
    vision = _pairs.vision_config(image, siglip_vision_model.FAMILY, "SigLIP")
    words = {"model_type": "siglip_text_model", "attention_dropout": text.backbone.dropout,
             "projection_size": spec.width}  # fmt: skip
    return {
        "model_type": "siglip",
        "vision_config": vision,
        "text_config": _pairs.text_config(text, "SigLIP", _tower, words),
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    assert spec.image is not None and spec.text is not None  # the spec's own validation
    return [
        *_pairs.tower_rows(spec.text, spec.image, siglip_vision_model.FAMILY),
        *(Row(f"text_projection.{kind}", (f"text_model.head.{kind}",)) for kind in ("weight", "bias")),
    ]


FAMILY = Family(
    model_types=("siglip",),
    model_class="SiglipModel",
    prefixes=("",),
    read=read,
    write=write,
    rows=rows,
    ignored=(
        Ignored(_pairs.BUFFERS, "a buffer of counted numbers"),
        Ignored(r"logit_(scale|bias)", "of the loss, not of the encoder"),
    ),
    inputs="pair",
    # Their forward reads the last token of a row, whatever is masked.
    feed=lambda ours: {name: ours[name] for name in ("input_ids", "pixel_values")},
    scale=(Row("logarithm", ("logit_scale",), _SCALAR), Row("bias", ("logit_bias",), _SCALAR)),
)
