"""DINOv2 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193): `Dinov2Model`, a ViT with layer scale."""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Classifier, Family, Public, Row, Shape, inexpressible, layered
from ssl_core.interop.hf._pictures import (
    EachToken,
    Unbatched,
    check_trunk,
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
    """The class token is its vector."""
    public.one_of("use_swiglu_ffn", {False: None}, False)
    public.one_of("apply_layernorm", {True: None}, True)
    width = public.whole("hidden_size", 768)
    spec = EncoderSpec.model_validate(
        {
            **trunk_fields(public, epsilon=1e-6), "mlp_ratio": int(width * public.number("mlp_ratio", 4)) / width,
            "embedding_norm": False, "class_tokens": 1, "positions": "learned", "pooling": "cls",
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
    if spec.positions != "learned" or spec.pooling != "cls" or not spec.patch_bias:
        raise inexpressible("DINOv2", "it has learned positions, a bias of patches, and the class token as its vector")
    return {
        "model_type": "dinov2",
        "mlp_ratio": spec.mlp_ratio,
        "layerscale_value": spec.layer_scale,
        "image_size": square_size(shape, "DINOv2"),
        "qkv_bias": spec.qkv_bias != "no",
        **trunk_config(shape),
    }


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


def _classifier(shape: Shape, weight: Any, bias: Any) -> dict[str, Any]:
    """Theirs reads the class token and the mean of the patches beside each other; ours has no use for the second."""
    import torch

    return {"classifier.weight": torch.cat([weight, torch.zeros_like(weight)], 1), "classifier.bias": bias}


FAMILY = Family(
    model_types=("dinov2",),
    model_class="Dinov2Model",
    prefixes=("dinov2.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(MASK_TOKEN,),
    classifier=Classifier("Dinov2ForImageClassification", _classifier),
    inputs="pixels",
)
