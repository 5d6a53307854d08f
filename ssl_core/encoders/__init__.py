"""Encoders by family. Needs torch; what `ssl_core.spec` must know of a family is its row of `FAMILIES` there."""

from __future__ import annotations

from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.convnet import ConvNet
from ssl_core.encoders.dual import Dual
from ssl_core.encoders.resnet import ResNet
from ssl_core.encoders.transformer import Transformer
from ssl_core.encoders.vit import ViT
from ssl_core.encoders.wave import Wave

ENCODERS: dict[str, type[Encoder]] = {
    "transformer": Transformer,
    "vit": ViT,
    "wave": Wave,
    "convnet": ConvNet,
    "resnet": ResNet,
    "dual": Dual,
}


def build_encoder(spec: EncoderSpec, facts: dict[str, Any]) -> Encoder:
    """A freshly initialised encoder (by torch's generator: seed it first).

    Args:
        spec: its shape.
        facts: of the prepared data, `Source.facts`.

    Raises:
        SpecError: `encoder_does_not_fit`, the shape cannot read this data.
    """
    return ENCODERS[spec.family](spec, facts)


__all__ = ["ENCODERS", "Encoder", "build_encoder"]
