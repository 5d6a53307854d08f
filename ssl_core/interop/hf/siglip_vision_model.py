"""SigLIP's tower for pictures (Zhai et al. 2023, https://arxiv.org/abs/2303.15343): `SiglipVisionModel`."""

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
from ssl_core.interop.hf.clip_vision_model import LAYER

_HEAD = {"pool.out": "head.attention.out_proj", "pool.feed_forward.up": "head.mlp.fc1",
         "pool.feed_forward.down": "head.mlp.fc2"}  # fmt: skip


def read(public: Public) -> Shape:
    """No class token; a learned query makes the vector."""
    public.one_of("vision_use_head", {True: None}, True)
    width = public.whole("hidden_size", 768)
    spec = EncoderSpec.model_validate(
        {
            **trunk_fields(public, "gelu_pytorch_tanh", 1e-6),
            "mlp_ratio": public.whole("intermediate_size", 3072) / width, "embedding_norm": False,
            "positions": "learned", "pooling": "attention", "patch_size": public.whole("patch_size", 16),
        }
    )  # fmt: skip
    return picture_shape(public, spec)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where there is no class token and the pooling is by attention."""
    spec = shape.backbone
    if spec.family != "vit" or spec.class_tokens or spec.pooling != "attention":
        return None
    check_trunk(spec, "SigLIP")
    if spec.positions != "learned" or not spec.patch_bias or spec.qkv_bias == "no" or spec.embedding_norm:
        raise inexpressible("SigLIP", "it has learned positions, biases, and no norm behind the embedding")
    return {
        "model_type": "siglip_vision_model",
        "intermediate_size": hidden_size(spec),
        "image_size": square_size(shape, "SigLIP"),
        "vision_use_head": True,
        **trunk_config(shape),
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    head = [Row(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for ours, theirs in _HEAD.items() for kind in _KINDS]
    return [
        *patch_rows(spec, "embeddings.patch_embedding"),
        Row("position", ("embeddings.position_embedding.weight",)),
        *layered(spec.depth, layer_rows(spec, LAYER), "encoder.layers"),
        *norm_rows("final_norm", "post_layernorm"),
        Row("pool.query", ("head.probe",), EachToken()),
        *(Row(f"pool.qkv.{kind}", (f"head.attention.in_proj_{kind}",)) for kind in _KINDS),
        *norm_rows("pool.norm", "head.layernorm"),
        *head,
    ]


_KINDS = ("weight", "bias")
FAMILY = Family(
    model_types=("siglip_vision_model",),
    model_class="SiglipVisionModel",
    prefixes=("vision_model.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(Ignored(r"embeddings\.position_ids", "a buffer of counted numbers"),),
    inputs="pixels",
    output="pooler_output",
)
