"""DINOv2 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193): `Dinov2Model`, a ViT with layer scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Headed, Public, Row, Shape, inexpressible, layered
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
from ssl_core.interop.hf.vit import MASK_TOKEN
from ssl_core.interop.transforms import SAME

_LAYER = {
    "attention_norm": "norm1",
    "attention.qkv": "attention.attention.query attention.attention.key attention.attention.value",
    "attention.out": "attention.output.dense",
    "feed_forward_norm": "norm2",
    "feed_forward.up": "mlp.fc1",
    "feed_forward.down": "mlp.fc2",
}


def read(public: Public) -> Shape:
    """The class token is its vector, unless an export of ours says otherwise (`pooling`)."""
    public.one_of("use_swiglu_ffn", {False: None}, False)
    public.one_of("apply_layernorm", {True: None}, True)
    width = public.whole("hidden_size", 768)
    spec = EncoderSpec.model_validate(
        {
            **trunk_fields(public, epsilon=1e-6), "mlp_ratio": int(width * public.number("mlp_ratio", 4)) / width,
            "embedding_norm": False, "class_tokens": 1, "positions": "learned",
            "pooling": public.one_of("pooling", {"cls": "cls", "mean": "mean"}, "cls"),
            "patch_size": public.whole("patch_size", 14), "layer_scale": public.number("layerscale_value", 1.0),
            "qkv_bias": public.one_of("qkv_bias", {True: "same", False: "no"}, True),
        }
    )  # fmt: skip
    return picture_shape(public, spec)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where there are a class token, learned positions and a layer scale."""
    spec = shape.backbone
    if spec.family != "vit" or spec.class_tokens != 1 or spec.embedding_norm or not spec.layer_scale:
        return None
    check_trunk(spec, "DINOv2", scaled=True)
    if spec.positions != "learned" or spec.pooling == "attention" or not spec.patch_bias:
        raise inexpressible("DINOv2", "it has learned positions, a bias of patches, and no pooling by attention")
    return {
        **({} if spec.pooling == "cls" else {"pooling": spec.pooling}),
        "model_type": "dinov2",
        "mlp_ratio": ratio(spec),
        "layerscale_value": spec.layer_scale,
        "image_size": square_size(shape, "DINOv2"),
        "qkv_bias": spec.qkv_bias != "no",
        **trunk_config(shape),
    }


def ratio(spec: EncoderSpec) -> int:
    """Hidden channels by width. Raises SpecError `export_unsupported` where that is no whole number."""
    if hidden_size(spec) % spec.width:
        raise inexpressible("DINOv2", "its feed-forward is a whole number of times as wide as its layers")
    return hidden_size(spec) // spec.width


def rows(spec: EncoderSpec) -> list[Row]:
    """Every tensor."""
    layer = layer_rows(spec, _LAYER) | {
        "attention_scale.factor": (("layer_scale1.lambda1",), SAME),
        "feed_forward_scale.factor": (("layer_scale2.lambda1",), SAME),
    }
    return [
        *patch_rows(spec, "embeddings.patch_embeddings.projection"),
        Row("class_token", ("embeddings.cls_token",), EachToken()),
        Row("position", ("embeddings.position_embeddings",), Unbatched()),
        *layered(spec.depth, layer, "encoder.layer"),
        *norm_rows("final_norm", "layernorm"),
    ]


def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
    """Theirs reads the class token and the mean of the patches beside each other; ours has a use for one of them."""
    import torch

    nothing = torch.zeros_like(weight)
    both = [weight, nothing] if shape.backbone.pooling == "cls" else [nothing, weight]
    head = classifiers.layer("classifier", torch.cat(both, 1), bias)
    return Headed("Dinov2ForImageClassification", classifiers.under("dinov2.", trunk) | head)


def of_vit(spec: EncoderSpec, trunk: Mapping[str, Any], rows_of_vit: list[Row]) -> dict[str, Any]:
    """A ViT's tensors under the names of DINOv2, with a layer scale that changes no digit."""
    import torch

    theirs = {row.ours: row.theirs for row in rows_of_vit}
    renamed = {
        name: trunk[old] for row in rows(spec) if row.ours in theirs
        for name, old in zip(row.theirs, theirs[row.ours], strict=True)
    }  # fmt: skip
    scales = {name: torch.ones(spec.width) for row in rows(spec) if row.ours not in theirs for name in row.theirs}
    return renamed | scales


FAMILY = Family(
    model_types=("dinov2",),
    model_class="Dinov2Model",
    prefixes=("dinov2.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(MASK_TOKEN,),
    classify=classify,
    inputs="pixels",
)
