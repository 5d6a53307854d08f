"""CLIP's tower for pictures (Radford et al. 2021, https://arxiv.org/abs/2103.00020): `CLIPVisionModel`."""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Ignored, Public, Row, Shape, inexpressible, layered
from ssl_core.interop.hf._pictures import (
    EachToken,
    check_trunk,
    hidden_size,
    layer_rows,
    norm_rows,
    patch_rows,
    picture_shape,
    square_size,
    trunk_config,
    trunk_fields,
)

LAYER = {
    "attention_norm": "layer_norm1",
    "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "feed_forward_norm": "layer_norm2",
    "feed_forward.up": "mlp.fc1",
    "feed_forward.down": "mlp.fc2",
}


def read(public: Public) -> Shape:
    """Norms behind the embedding and in front of every layer; the class token is its vector."""
    width = public.whole("hidden_size", 768)
    spec = EncoderSpec.model_validate(
        {
            **trunk_fields(public, "quick_gelu", 1e-5), "mlp_ratio": public.whole("intermediate_size", 3072) / width,
            "first_norm": True, "class_tokens": 1, "positions": "learned", "pooling": "cls", "patch_bias": False,
            "patch_size": public.whole("patch_size", 32),
        }
    )  # fmt: skip
    return picture_shape(public, spec)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where there are a class token and a norm behind the embedding."""
    spec = shape.backbone
    if spec.family != "vit" or spec.class_tokens != 1 or not spec.embedding_norm:
        return None
    check_trunk(spec, "CLIP")
    if spec.positions != "learned" or spec.pooling != "cls" or spec.patch_bias or spec.qkv_bias == "no":
        raise inexpressible("CLIP", "it has learned positions, no bias of patches, and the class token as its vector")
    if not spec.first_norm:
        raise inexpressible("CLIP", "its first layer has a norm in front too")
    return {
        "model_type": "clip_vision_model",
        "intermediate_size": hidden_size(spec),
        "image_size": square_size(shape, "CLIP"),
        **trunk_config(shape),
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    return [
        *patch_rows(spec, "embeddings.patch_embedding"),
        Row("class_token", ("embeddings.class_embedding",), EachToken(0)),
        Row("position", ("embeddings.position_embedding.weight",)),
        # Their spelling.
        *norm_rows("embedding_norm", "pre_layrnorm"),
        *layered(spec.depth, layer_rows(spec, LAYER), "encoder.layers"),
        *norm_rows("final_norm", "post_layernorm"),
    ]


FAMILY = Family(
    model_types=("clip_vision_model",),
    model_class="CLIPVisionModel",
    prefixes=("vision_model.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(Ignored(r"embeddings\.position_ids", "a buffer of counted numbers"),),
    inputs="pixels",
    output="pooler_output",
)
