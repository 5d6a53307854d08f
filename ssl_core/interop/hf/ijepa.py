"""I-JEPA's encoder (Assran et al. 2023, https://arxiv.org/abs/2301.08243): `IJepaModel`, a ViT without class tokens.

Fixed positions are marked in the config as in `vit.py`.
"""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Public, Row, Shape, inexpressible
from ssl_core.interop.hf import vit
from ssl_core.interop.hf._pictures import check_trunk, hidden_size, picture_shape, square_size, trunk_config


def read(public: Public) -> Shape:
    """The mean of the patches is its vector."""
    positions = public.one_of("fixed_positions", {True: "sincos", False: "learned"}, False)
    spec = EncoderSpec.model_validate({**vit.fields(public), "class_tokens": 0, "positions": positions})
    return picture_shape(public, spec)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where there are no class tokens and the mean of the patches is the vector."""
    spec = shape.backbone
    if spec.family != "vit" or spec.class_tokens or spec.pooling != "mean":
        return None
    check_trunk(spec, "I-JEPA")
    if spec.positions == "none" or not spec.patch_bias or spec.embedding_norm:
        raise inexpressible("I-JEPA", "it has positions, a bias of patches, and no norm behind the embedding")
    return {
        "model_type": "ijepa",
        "intermediate_size": hidden_size(spec),
        "image_size": square_size(shape, "I-JEPA"),
        "qkv_bias": spec.qkv_bias != "no",
        **trunk_config(shape),
        **({"fixed_positions": True} if spec.positions == "sincos" else {}),
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """A ViT's, without the class token."""
    return [row for row in vit.rows(spec) if row.ours != "class_token"]


FAMILY = Family(
    model_types=("ijepa",),
    model_class="IJepaModel",
    prefixes=("ijepa.",),
    read=read,
    write=write,
    rows=rows,
    ignored=(vit.POOLER, vit.MASK_TOKEN),
    classify=classifiers.linear("IJepaForImageClassification", "ijepa.", "classifier", "mean"),
    inputs="pixels",
)
