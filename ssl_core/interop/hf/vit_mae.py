"""MAE's encoder (He et al. 2022, https://arxiv.org/abs/2111.06377): `ViTMAEModel`, a ViT with fixed positions.

Its own forward shuffles the patches and drops three quarters, so an export that shall give vectors is a ViT's.
"""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Family, Ignored, Public, Shape
from ssl_core.interop.hf import vit
from ssl_core.interop.hf._pictures import picture_shape


def read(public: Public) -> Shape:
    """Fixed positions, as its files hold them; the mean of the patches is its vector."""
    return picture_shape(public, EncoderSpec.model_validate({**vit.fields(public), "positions": "sincos"}))


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the positions are fixed and the mean of the patches is the vector."""
    if shape.backbone.positions != "sincos" or shape.backbone.pooling != "mean":
        return None
    config = vit.write(shape)
    if config is None:
        return None
    told = {name: value for name, value in config.items() if name not in ("fixed_positions", "pooling")}
    return {**told, "model_type": "vit_mae"}


FAMILY = Family(
    model_types=("vit_mae",),
    model_class="ViTMAEModel",
    prefixes=("vit.",),
    read=read,
    write=write,
    rows=vit.rows,
    ignored=(Ignored(r"decoder\..*", "the decoder of pretraining"), vit.POOLER),
    inputs="pixels",
    exported=False,
)
