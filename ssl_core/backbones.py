"""Encoder shapes by name, and what each family reads. Imports without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ssl_core.modalities import MODALITIES
from ssl_core.values import Value


class EncoderSpec(Value):
    """The shape of an encoder. A name such as `text-small` stands for one of the rows in `BACKBONES`."""

    name: str = Field(max_length=64, description="a row of `GET /v1/backbones`, or `custom`")
    family: Literal["transformer", "convnet", "resnet"]
    width: int = Field(ge=16, le=4096, description="channels of a token, or of the first stage of a conv net")
    depth: int = Field(ge=1, le=101, description="layers; for a ResNet 18 or 50")
    heads: int = Field(default=1, ge=1, le=64, description="attention heads (transformer)")
    mlp_ratio: float = Field(default=4.0, ge=1.0, le=8.0)
    positions: Literal["rotary", "learned", "none"] = "rotary"
    max_positions: int = Field(default=1024, ge=8, le=32768)
    norm: Literal["pre", "post"] = "pre"
    mlp: Literal["gelu", "geglu", "swiglu"] = "gelu"
    bias: bool = Field(default=True, description="transformer: biases in linear layers and norms")
    norm_epsilon: float = Field(default=1e-5, gt=0, le=1e-2)
    rotary_base: float = Field(default=10_000.0, ge=100, le=1e7, description="longest rotary wavelength / 2 pi")
    dropout: float = Field(default=0.0, ge=0.0, le=0.5)
    stem: Literal["small", "medium", "large"] = Field(
        default="small", description="conv nets: stride 1, 2 or 4 (ResNet: small or large)"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> EncoderSpec:
        if self.family == "transformer" and self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be divisible by twice the heads ({self.heads})")
        if self.family == "resnet" and self.depth not in (18, 50):
            raise ValueError(f"a resnet has depth 18 or 50, not {self.depth}")
        if self.family == "resnet" and self.stem == "medium":
            raise ValueError("a resnet has a stem small or large, not medium")
        return self


def _text(size: str, width: int, depth: int, heads: int) -> EncoderSpec:
    return EncoderSpec(name=f"text-{size}", family="transformer", width=width, depth=depth, heads=heads)


_ROWS = (
    # One wide layer: in minutes on a CPU, a large vocabulary learns more about topics than depth does.
    EncoderSpec(name="text-shallow", family="transformer", width=256, depth=1, heads=4, mlp_ratio=2.0),
    _text("tiny", 128, 2, 2),
    _text("small", 256, 4, 4),
    _text("base", 768, 12, 12),
    _text("large", 1024, 24, 16),
    EncoderSpec(name="image-convnet-tiny", family="convnet", width=32, depth=3),
    EncoderSpec(name="image-convnet", family="convnet", width=64, depth=3, stem="medium"),
    EncoderSpec(name="image-resnet18", family="resnet", width=64, depth=18),
    EncoderSpec(name="image-resnet50", family="resnet", width=64, depth=50),
)
BACKBONES: dict[str, EncoderSpec] = {row.name: row for row in _ROWS}
_HAS_TOKENS = {"transformer": True, "convnet": False, "resnet": False}
# Which modalities an encoder family reads, and whether it has tokens (an objective may need them).
FAMILIES: dict[str, tuple[tuple[str, ...], bool]] = {
    family: (tuple(name for name, one in MODALITIES.items() if family in one.families), has_tokens)
    for family, has_tokens in _HAS_TOKENS.items()
}


def named_backbone(value: Any) -> Any:
    """A backbone name becomes its row; anything else passes on to validation."""
    if isinstance(value, str):
        if value not in BACKBONES:
            raise ValueError(f"unknown backbone {value!r}; known: {', '.join(BACKBONES)}")
        return BACKBONES[value]
    return value
