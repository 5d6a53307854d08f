"""ViT (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929): `ViTModel` and the models with heads on it.

Encoders of ours with fixed positions or the mean of patches as their vector are written as such a model too: two keys
of their config that transformers does not read, `fixed_positions` and `pooling`, tell us when we read it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Headed, Ignored, Public, Row, Shape, inexpressible, layered
from ssl_core.interop.hf._pictures import (
    EachToken,
    Unbatched,
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
    "attention_norm": "layernorm_before",
    "attention.qkv": "attention.attention.query attention.attention.key attention.attention.value",
    "attention.out": "attention.output.dense",
    "feed_forward_norm": "layernorm_after",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
}
POOLER = Ignored(r"pooler\.dense\.(weight|bias)", "a layer on the class token that pretraining does not learn")
MASK_TOKEN = Ignored(r"embeddings\.mask_token", "stands for hidden patches in pretraining; objectives have their own")


def fields(public: Public) -> dict[str, Any]:
    """Of a model with one class token, norms in front of the layers and patches side by side."""
    width, hidden = public.whole("hidden_size", 768), public.whole("intermediate_size", 3072)
    return {
        **trunk_fields(public), "mlp_ratio": hidden / width, "embedding_norm": False, "class_tokens": 1,
        "patch_size": public.whole("patch_size", 16),
        "qkv_bias": public.one_of("qkv_bias", {True: "same", False: "no"}, True),
    }  # fmt: skip


def read(public: Public) -> Shape:
    """Learned positions and the class token's vector, unless an export of ours says otherwise."""
    positions = public.one_of("fixed_positions", {True: "sincos", False: "learned"}, False)
    pooling = public.one_of("pooling", {"cls": "cls", "mean": "mean"}, "cls")
    spec = EncoderSpec.model_validate({**fields(public), "positions": positions, "pooling": pooling})
    return picture_shape(public, spec)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where there is one class token, no norm behind the embedding and no layer scale."""
    spec = shape.backbone
    if spec.family != "vit" or spec.class_tokens != 1 or spec.embedding_norm or spec.layer_scale:
        return None
    check_trunk(spec, "ViT")
    if spec.positions == "none" or not spec.patch_bias or spec.pooling == "attention":
        raise inexpressible("ViT", "it has positions, a bias of patches, and no pooling by attention")
    told: dict[str, Any] = {"fixed_positions": True} if spec.positions == "sincos" else {}
    if spec.pooling != "cls":
        told["pooling"] = spec.pooling
    return {
        "model_type": "vit",
        "intermediate_size": hidden_size(spec),
        "image_size": square_size(shape, "ViT"),
        "qkv_bias": spec.qkv_bias != "no",
        **trunk_config(shape),
        **told,
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    return [
        *patch_rows(spec, "embeddings.patch_embeddings.projection"),
        Row("class_token", ("embeddings.cls_token",), EachToken()),
        Row("position", ("embeddings.position_embeddings",), Unbatched()),
        *layered(spec.depth, layer_rows(spec, LAYER), "encoder.layer"),
        *norm_rows("final_norm", "layernorm"),
    ]


def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
    """Theirs reads the class token. The mean of the patches is read by DINOv2's, which is a ViT with a layer scale."""
    if shape.backbone.pooling == "cls":
        return classifiers.linear("ViTForImageClassification", "vit.", "classifier", "cls")(shape, trunk, weight, bias)
    from ssl_core.interop.hf import dinov2

    made = dinov2.classify(shape, dinov2.of_vit(shape.backbone, trunk, rows(shape.backbone)), weight, bias)
    told = {"model_type": "dinov2", "mlp_ratio": dinov2.ratio(shape.backbone), "layerscale_value": 1.0}
    return replace(made, config={**told, "pooling": "mean"})


FAMILY = Family(
    model_types=("vit",),
    model_class="ViTModel",
    prefixes=("vit.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(POOLER, MASK_TOKEN),
    classify=classify,
    inputs="pixels",
)
