"""ResNet-18 and ResNet-50 (He et al. 2015, https://arxiv.org/abs/1512.03385): `ResNetModel`, version 1.5.

The small stem for pictures of 32 pixels is SimCLR's, and no public class has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.backbones import EncoderSpec
from ssl_core.interop import classifiers
from ssl_core.interop.base import Family, Public, Row, Shape, inexpressible, unsupported
from ssl_core.interop.hf._pictures import picture_shape
from ssl_core.interop.transforms import COUNT

_STAGES = {18: ("basic", (2, 2, 2, 2)), 50: ("bottleneck", (3, 4, 6, 3))}
_WIDER = {18: 1, 50: 4}
"""Channels that come out of a stage's first block, by those inside it."""


def read(public: Public) -> Shape:
    """Depth 18 or 50 with the paper's stem."""
    for name in ("downsample_in_first_stage", "downsample_in_bottleneck"):
        public.one_of(name, {False: None}, False)
    public.one_of("hidden_act", {"relu": None}, "relu")
    kind, depths = public.config.get("layer_type", "bottleneck"), public.config.get("depths", [3, 4, 6, 3])
    depth = next((depth for depth, known in _STAGES.items() if depths == list(known[1]) and kind == known[0]), None)
    if depth is None:
        raise unsupported("depths", depths, "[2, 2, 2, 2] of layer_type basic or [3, 4, 6, 3] of bottleneck")
    width, sizes = public.whole("embedding_size", 64), public.config.get("hidden_sizes", [256, 512, 1024, 2048])
    wanted = _widths(width, depth)
    if sizes != wanted:
        raise unsupported("hidden_sizes", sizes, f"{wanted} behind an embedding_size of {width}")
    spec = EncoderSpec(name="custom", family="resnet", width=width, depth=depth, stem="large")
    return picture_shape(_sized(public), spec)


def _widths(width: int, depth: int) -> list[int]:
    return [_WIDER[depth] * width * 2**stage for stage in range(4)]


def _sized(public: Public) -> Public:
    """Their config has no size of pictures; the settings of their reader do."""
    told = public.extras.get("preprocessor_config.json", {})
    size = told.get("crop_size", told.get("size"))
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    return Public({"image_size": 224 if size is None else size, **public.config}, public.specials, public.extras)


def write(shape: Shape) -> dict[str, Any] | None:
    """The config, where the stem is the paper's."""
    spec = shape.backbone
    if spec.family != "resnet":
        return None
    if spec.stem != "large":
        raise inexpressible("ResNet", "its stem is 7 x 7 with stride 2 and a pooling, not the small one for 32 pixels")
    kind, depths = _STAGES[spec.depth]
    told = {ours: shape.facts[name] for ours, name in (("image_mean", "mean"), ("image_std", "std"))
            if isinstance(shape.facts.get(name), list)}  # fmt: skip
    return {
        "model_type": "resnet",
        "embedding_size": spec.width,
        "hidden_sizes": _widths(spec.width, spec.depth),
        "depths": list(depths),
        "layer_type": kind,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "num_channels": shape.facts["channels"],
        "image_size": shape.facts["size"],
        **told,
    }


def rows(spec: EncoderSpec) -> list[Row]:
    """Every convolution and every norm with its averages."""
    made = _normed("stem", "embedder.embedder")
    kind, depths = _STAGES[spec.depth]
    parts, block = 3 if kind == "bottleneck" else 2, 0
    for stage, depth in enumerate(depths):
        for at in range(depth):
            ours, theirs = f"blocks.{block}", f"encoder.stages.{stage}.layers.{at}"
            for part in range(parts):
                made += _normed(f"{ours}.parts.{part}", f"{theirs}.layer.{part}")
            if at == 0 and (stage > 0 or kind == "bottleneck"):
                made += _normed(f"{ours}.shortcut", f"{theirs}.shortcut")
            block += 1
    return made


def _normed(ours: str, theirs: str) -> list[Row]:
    norm = f"{theirs}.normalization"
    kinds = ("weight", "bias", "running_mean", "running_var")
    return [
        Row(f"{ours}.0.weight", (f"{theirs}.convolution.weight",)),
        *(Row(f"{ours}.1.{kind}", (f"{norm}.{kind}",)) for kind in kinds),
        Row(f"{ours}.1.num_batches_tracked", (f"{norm}.num_batches_tracked",), COUNT),
    ]


FAMILY = Family(
    model_types=("resnet",),
    model_class="ResNetModel",
    prefixes=("resnet.",),
    read=read,
    write=write,
    rows=rows,
    classify=classifiers.linear("ResNetForImageClassification", "resnet.", "classifier.1", "mean"),
    inputs="pixels",
)
