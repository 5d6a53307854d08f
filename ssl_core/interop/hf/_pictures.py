"""What families of pictures share: settings and facts of an import, tokens with axes in front. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop.base import Public, Row, Shape, inexpressible, unsupported, with_bias
from ssl_core.interop.transforms import SAME, Stacked, Transform
from ssl_core.modalities.image import ImageModality

if TYPE_CHECKING:
    from torch import Tensor

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
    "quick_gelu": "quick_gelu",
}  # fmt: skip
THEIR_ACTIVATION = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "quick_gelu": "quick_gelu"}
_MIDDLE = {1: (0.5,), 3: (0.5, 0.5, 0.5)}
"""Mean and deviation where the folder names none: values from -1 to 1, as transformers has it for ViT."""


@dataclass(frozen=True)
class EachToken:
    """Each row of ours (R, D) is one tensor of theirs, D numbers behind some axes of one.

    Attributes:
        axes: how many.
    """

    axes: int = 2

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `Transform`."""
        import torch

        return torch.cat([part.reshape(1, part.shape[-1]) for part in theirs])

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        return [row.reshape(*[1] * self.axes, -1).contiguous() for row in ours]


@dataclass(frozen=True)
class Unbatched:
    """Theirs (1, ...) has an axis for a batch in front."""

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `Transform`."""
        if theirs[0].shape[0] != 1:
            raise RuntimeError(f"its first axis is {theirs[0].shape[0]} long instead of 1")
        return theirs[0][0].contiguous()

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `Transform`."""
        return [ours[None].contiguous()]


def picture_shape(public: Public, backbone: EncoderSpec) -> Shape:
    """The shape of a model of square pictures; their mean and deviation are those of `preprocessor_config.json`."""
    size, channels = public.whole("image_size", 224), public.whole("num_channels", 3)
    if channels not in _MIDDLE:
        raise unsupported("num_channels", channels, "1 or 3")
    if not 8 <= size <= 512:
        raise unsupported("image_size", size, "8 to 512")
    told = {**public.config, **public.extras.get("preprocessor_config.json", {})}
    facts: dict[str, Any] = {"channels": channels, "size": size, "side": size}
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
        facts[ours] = _numbers(theirs, told.get(theirs) or _MIDDLE[channels], channels)
    modality = ImageModality.model_validate({"size": size, "channels": channels, "flip": channels == 3})
    return Shape(backbone, modality, facts)


def _numbers(name: str, value: Any, count: int) -> list[float]:
    given = list(value) if isinstance(value, list | tuple) else []
    if len(given) != count or not all(type(one) in (int, float) for one in given):
        raise unsupported(name, value, f"{count} numbers")
    return [float(one) for one in given]


def trunk_fields(public: Public, activation: str = "gelu", epsilon: float = 1e-12) -> dict[str, Any]:
    """What every such config says of its layers, as fields of ours.

    Args:
        public: the folder.
        activation, epsilon: what their config means where it is silent.
    """
    width = public.whole("hidden_size", 768)
    return {
        "name": "custom", "family": "vit", "width": width, "depth": public.whole("num_hidden_layers", 12),
        "heads": public.whole("num_attention_heads", 12),
        "mlp": public.one_of("hidden_act", ACTIVATIONS, activation),
        "norm_epsilon": public.number("layer_norm_eps", epsilon),
        "dropout": min(0.5, public.number("hidden_dropout_prob", 0.0)),
    }  # fmt: skip


def square_size(shape: Shape, family: str) -> int:
    """Pixels along a side. Raises SpecError `export_unsupported` where pictures are no squares."""
    height, width = (shape.facts.get(name, shape.facts["size"]) for name in ("height", "width"))
    if height != width:
        raise inexpressible(family, f"its pictures are squares, not {height} x {width}")
    return int(height)


def check_trunk(spec: EncoderSpec, family: str, *, strided: bool = False, scaled: bool = False) -> None:
    """Raises SpecError `export_unsupported` where the layers are not those that all these families share.

    Args:
        spec: ours.
        family: whose name the message has.
        strided: patches may overlap.
        scaled: a layer scale is needed rather than refused.
    """
    if spec.norm != "pre" or spec.norm_kind != "layer" or not spec.bias or spec.mlp not in THEIR_ACTIVATION:
        raise inexpressible(family, "it has layer norms with biases in front of its layers, and no gates")
    if spec.key_value_heads not in (0, spec.heads) or bool(spec.layer_scale) != scaled or spec.register_tokens:
        raise inexpressible(family, f"it has no grouped queries, {'a' if scaled else 'no'} layer scale, no registers")
    if not strided and spec.patch_stride not in (0, spec.patch_size):
        raise inexpressible(family, "its patches do not overlap")


def trunk_config(shape: Shape) -> dict[str, Any]:
    """The other way round from `trunk_fields`, and the normalisation of pictures."""
    spec = shape.backbone
    told = {ours: shape.facts[name] for ours, name in (("image_mean", "mean"), ("image_std", "std"))
            if isinstance(shape.facts.get(name), list)}  # fmt: skip
    return {
        "hidden_size": spec.width, "num_hidden_layers": spec.depth, "num_attention_heads": spec.heads,
        "hidden_act": THEIR_ACTIVATION[spec.mlp], "layer_norm_eps": spec.norm_epsilon,
        "hidden_dropout_prob": spec.dropout, "attention_probs_dropout_prob": spec.dropout,
        "patch_size": spec.patch_size, "num_channels": shape.facts["channels"], **told,
    }  # fmt: skip


def hidden_size(spec: EncoderSpec) -> int:
    """Of the feed-forward."""
    return round(spec.mlp_ratio * spec.width)


def layer_rows(spec: EncoderSpec, places: Mapping[str, str]) -> dict[str, Any]:
    """Rows within a layer.

    Args:
        spec: ours.
        places: our module -> theirs; three of `attention.qkv`, apart by spaces.
    """
    rows: dict[str, Any] = {}
    for ours, theirs in places.items():
        stacked = ours == "attention.qkv"
        how: Transform = Stacked((spec.width,) * 3) if stacked else SAME
        rows |= with_bias({ours: (tuple(theirs.split()), how)}, not stacked or spec.qkv_bias != "no")
    return rows


def patch_rows(spec: EncoderSpec, theirs: str) -> list[Row]:
    """The projection of patches, a convolution in both."""
    kinds = ("weight", "bias") if spec.patch_bias else ("weight",)
    return [Row(f"patch.{kind}", (f"{theirs}.{kind}",)) for kind in kinds]


def norm_rows(ours: str, theirs: str) -> list[Row]:
    """A layer norm."""
    return [Row(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for kind in ("weight", "bias")]
