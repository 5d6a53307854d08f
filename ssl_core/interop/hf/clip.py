"""CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020), both towers: `CLIPModel`."""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, inexpressible, unsupported
from ssl_core.interop.hf import _pairs, clip_vision_model

_USUAL = {
    "hidden_size": 512, "heads": 8, "intermediate_size": 2048, "max_position_embeddings": 77,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_HIGHEST = 2
"""Configs of old say that entry 2 ends a text, and mean the highest entry of it."""


def _tower(public: Public) -> EncoderSpec:
    return _pairs.text_tower(public, _USUAL, attention="causal")


def read(public: Public) -> Shape:
    """A causal text tower whose last token, the end of the text, is its vector."""
    image = clip_vision_model.read(_pairs.side(public, "vision"))
    words = _pairs.side(public, "text")
    end = words.whole("eos_token_id", 49407)
    if words.specials and end not in (_HIGHEST, words.specials.get("sep_id")):
        raise unsupported("text_config.eos_token_id", end, f"{words.specials.get('sep_id')}, as the tokenizer has it")
    text = _pairs.text_side(words, _tower(words), 49408)
    backbone = {"width": public.whole("projection_dim", 512), "projection": "both"}
    return _pairs.pair_shape(image, text, backbone, {"special_tokens": True})


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where both towers are theirs."""
    spec = shape.backbone
    if spec.family != "dual" or spec.projection != "both":
        return None
    image, text, modality = _pairs.towers(shape, "CLIP")
    if modality.filler:
        raise inexpressible("CLIP", "it does not read what fills a text")
    if text.facts.get("sep_id") in (None, _HIGHEST):
        raise inexpressible("CLIP", "it finds the end of a text by its entry there, which this tokenizer lacks")
    vision = _pairs.vision_config(image, clip_vision_model.FAMILY, "CLIP")
    words = {"model_type": "clip_text_model", "attention_dropout": text.backbone.dropout, "projection_dim": spec.width}
    return {
        "model_type": "clip",
        "projection_dim": spec.width,
        "vision_config": {**vision, "projection_dim": spec.width},
        "text_config": _pairs.text_config(text, "CLIP", _tower, words),
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    assert spec.image is not None and spec.text is not None  # the spec's own validation
    return [
        *_pairs.tower_rows(spec.text, spec.image, clip_vision_model.FAMILY),
        Row("image_projection.weight", ("visual_projection.weight",)),
        Row("text_projection.weight", ("text_projection.weight",)),
    ]


FAMILY = Family(
    model_types=("clip",),
    model_class="CLIPModel",
    prefixes=("",),
    read=read,
    write=write,
    rows=rows,
    ignored=(
        Ignored(_pairs.BUFFERS, "a buffer of counted numbers"),
        Ignored(r"logit_scale", "of the loss, not of the encoder"),
    ),
    inputs="pair",
    scale=(Row("logarithm", ("logit_scale",)),),
)
