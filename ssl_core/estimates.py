"""What a job will need: parameters, bytes and steps, predicted without torch. Imports without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from ssl_core.backbones import GATED, STEM_STEPS, EncoderSpec
from ssl_core.low_rank import LowRank, adapter_parameters
from ssl_core.modalities.base import Modality
from ssl_core.spec import Budget, DatasetFacts
from ssl_core.values import Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BYTES_PER_PARAMETER = 16
"""fp32 weight, gradient and AdamW's two moments."""
_BYTES_PER_TRAINED = 12
"""Of these, those that a frozen weight does not need."""
_PROCESS_BYTES = 400 * 2**20
"""Interpreter, torch and its libraries."""
_LOGITS = 2**26
_RESNET_PARAMETERS = {18: 11_200_000, 50: 23_500_000}
# float32 values kept for the backward pass, per input pixel and unit of first-stage width.
_CONV_VALUES = {"convnet": 13.0, "resnet18": 10.0, "resnet50": 42.0}


class Estimate(Value):
    """The answer of `POST /v1/jobs/estimate`. Predictions, good to about a factor of two."""

    steps: int | None = Field(description="None where the budget is `minutes`: only a measurement can tell")
    examples_per_epoch: int
    parameters: int = Field(description="of the encoder")
    trained_parameters: int = Field(description="of these; with `lora` those of the adapters instead")
    memory_bytes: int


def tokens_read(modality: Modality, views: tuple[str, ...], lengths: NDArray[np.float64]) -> float:
    """Mean tokens of a sample in all its views; 1 for a sample of pictures.

    Args:
        modality: whose views they are.
        views: a learner's.
        lengths: (documents,) tokens of each.
    """
    each = sum((modality.tokens(view, lengths) for view in views), lengths * 0)
    return float(each.mean()) if modality.has_lengths else 1.0


def tokens_per_sample(dataset: DatasetFacts, modality: Modality, views: tuple[str, ...]) -> float:
    """The same, predicted from the dataset's facts."""
    import numpy as np

    return tokens_read(modality, views, np.array([modality.mean_length(dataset)]))


def steps_of(budget: Budget, per_epoch: int, batch_size: int, tokens: float) -> int | None:
    """Steps of a budget over `per_epoch` samples of `tokens` each; None for `minutes`."""
    if budget.steps is not None:
        return budget.steps
    if budget.epochs is not None:
        return max(1, round(budget.epochs * max(1, per_epoch // batch_size)))
    if budget.examples is not None:
        return math.ceil(budget.examples / batch_size)
    if budget.tokens is not None:
        return max(1, math.ceil(budget.tokens / (batch_size * tokens)))
    return None


def encoder_parameters(backbone: EncoderSpec, modality: Modality) -> int:
    """Weights of an encoder: exact to a few percent for the Transformer and the ResNets."""
    return _PARAMETERS[backbone.family](backbone, modality)


def decoder_parameters(backbone: EncoderSpec, layers: int) -> int:
    """Weights of a decoder on an encoder's shape, which has attention twice and no token table."""
    places = backbone.max_positions if backbone.positions == "learned" else 0
    return int(layers * (_layer(backbone) + _attention(backbone)) + places * backbone.width)


def memory_bytes(
    backbone: EncoderSpec,
    modality: Modality,
    batch_size: int,
    views: tuple[str, ...],
    half: bool,
    decoder_layers: int = 0,
) -> int:
    """Peak memory of a training step.

    16 bytes a parameter (AdamW in fp32), the values kept for the backward pass, and the process.

    Args:
        backbone, modality, batch_size, views: the encoder, and what it reads in a step.
        half: values are kept in half precision.
        decoder_layers: of a decoder that writes about as much as the encoder reads; 0 = there is none.
    """
    slots = batch_size * sum(modality.slots(view) for view in views)
    kept = _KEPT[backbone.family](backbone, modality, slots)
    parameters = encoder_parameters(backbone, modality)
    if decoder_layers:
        kept += _decoder_values(backbone, modality, slots, decoder_layers)
        parameters += decoder_parameters(backbone, decoder_layers)
    return int(_PROCESS_BYTES + _BYTES_PER_PARAMETER * parameters + kept * (2 if half else 4))


def spared_bytes(backbone: EncoderSpec, modality: Modality, low: LowRank) -> int:
    """What training adapters alone needs less than training the encoder: gradients and AdamW's moments of its weights.

    The values kept for the backward pass stay: what goes into a matrix is what its adapter's gradient is made of.
    """
    frozen, trained = encoder_parameters(backbone, modality), adapter_parameters(low, backbone)
    return max(0, _BYTES_PER_TRAINED * frozen - _BYTES_PER_PARAMETER * trained)


def _trunk_parameters(backbone: EncoderSpec, modality: Modality) -> int:
    rows = int(getattr(modality, "entries", 0)) + (backbone.max_positions if backbone.positions == "learned" else 0)
    return int(backbone.depth * _layer(backbone) + rows * (backbone.embedding_width or backbone.width))


def _attention(backbone: EncoderSpec) -> float:
    shared = (backbone.key_value_heads or backbone.heads) / backbone.heads
    return backbone.width**2 * (2 + 2 * shared)


def _layer(backbone: EncoderSpec) -> float:
    matrices = 3 if backbone.mlp in GATED else 2
    return _attention(backbone) + backbone.width**2 * matrices * backbone.mlp_ratio


def _resnet_parameters(backbone: EncoderSpec, modality: Modality) -> int:
    return int(_RESNET_PARAMETERS[backbone.depth] * (backbone.width / 64) ** 2)


def _convnet_parameters(backbone: EncoderSpec, modality: Modality) -> int:
    width = backbone.width
    widths = [width * 2**stage for stage in range(backbone.depth)]
    stages = sum(9 * before * after + 18 * after * after for before, after in pairwise(widths))
    return int(9 * width * (3 + width) + stages)


def _trunk_values(backbone: EncoderSpec, modality: Modality, slots: float) -> float:
    """Korthikanti et al. 2022, "Reducing activation recomputation", arXiv 2205.05198, equation 1 without the attention
    map (a fused kernel keeps none): 9 values for each token, layer and channel, and 2 for each hidden channel of the
    feed-forward, 4 where it is gated; 17 in all for BERT. Beside them the vocabulary logits at the masked fifth of the
    tokens: value, softmax and gradient, always in float32."""
    logits = 0.2 * slots * int(getattr(modality, "entries", 0)) * 3
    values = 9 + (4 if backbone.mlp in GATED else 2) * backbone.mlp_ratio
    return values * slots * backbone.width * backbone.depth + logits


def _decoder_values(backbone: EncoderSpec, modality: Modality, slots: float, layers: int) -> float:
    """As a trunk's with 6 more values for the second attention (its input, queries, keys and values, and what it adds),
    and the vocabulary logits at every token, of which only so many are alive at once (`losses.vocabulary_losses`)."""
    logits = min(0.8 * slots * int(getattr(modality, "entries", 0)), _LOGITS) * 3
    values = 15 + (4 if backbone.mlp in GATED else 2) * backbone.mlp_ratio
    return values * slots * backbone.width * layers + logits


def _conv_values(backbone: EncoderSpec, modality: Modality, slots: float) -> float:
    name = f"resnet{backbone.depth}" if backbone.family == "resnet" else "convnet"
    return _CONV_VALUES[name] * slots / {"small": 1, "medium": 4, "large": 16}[backbone.stem] * backbone.width


def _vit_parameters(backbone: EncoderSpec, modality: Modality) -> int:
    pixels = backbone.patch_size**2 * int(getattr(modality, "channels", 1))
    places = _patches(backbone, modality.slots("plain")) if backbone.positions == "learned" else 0
    return _trunk_parameters(backbone.model_copy(update={"positions": "none"}), modality) + int(
        (pixels + places) * backbone.width
    )


def _vit_values(backbone: EncoderSpec, modality: Modality, slots: float) -> float:
    """As a trunk's, of all patches: an objective that hides some needs less."""
    tokens = _patches(backbone, slots)
    values = 9 + (4 if backbone.mlp in GATED else 2) * backbone.mlp_ratio
    return values * tokens * backbone.width * backbone.depth


def _wave_parameters(backbone: EncoderSpec, modality: Modality) -> int:
    first, *others = STEM_STEPS[backbone.stem]
    stem = backbone.stem_width * (first[0] + backbone.stem_width * sum(kernel for kernel, _ in others))
    taps = backbone.position_kernel * backbone.width // backbone.position_groups
    places = taps if backbone.positions == "convolution" else 0
    trunk = _trunk_parameters(backbone.model_copy(update={"positions": "none"}), modality)
    return trunk + stem + backbone.width * (places + backbone.stem_width)


def _wave_values(backbone: EncoderSpec, modality: Modality, slots: float) -> float:
    """What every layer of the stem convolves and what it puts through GELU, twice that with a norm in each; then as a
    trunk's."""
    frames, stem = slots, 0.0
    for _, stride in STEM_STEPS[backbone.stem]:
        frames /= stride
        stem += (4 if backbone.stem_norm == "layer" else 2) * frames * backbone.stem_width
    values = 9 + (4 if backbone.mlp in GATED else 2) * backbone.mlp_ratio
    return stem + values * frames * backbone.width * backbone.depth


def _patches(backbone: EncoderSpec, pixels: float) -> float:
    return pixels / (backbone.patch_stride or backbone.patch_size) ** 2


def _towers(backbone: EncoderSpec) -> tuple[EncoderSpec, EncoderSpec]:
    assert backbone.image is not None and backbone.text is not None  # the spec's own validation
    return backbone.image, backbone.text


def _dual_parameters(backbone: EncoderSpec, modality: Modality) -> int:
    """Both towers; a projection is next to nothing."""
    return sum(encoder_parameters(tower, modality) for tower in _towers(backbone))


def _dual_values(backbone: EncoderSpec, modality: Modality, slots: float) -> float:
    """The slots of a pair are the picture's; its text has `max_length` more."""
    image, text = _towers(backbone)
    pairs = slots / modality.slots("plain")
    words = 17 * pairs * int(getattr(modality, "max_length", 0)) * text.width * text.depth
    return _KEPT[image.family](image, modality, slots) + words


_PARAMETERS: dict[str, Callable[[EncoderSpec, Modality], int]] = {
    "transformer": _trunk_parameters,
    "vit": _vit_parameters,
    "wave": _wave_parameters,
    "convnet": _convnet_parameters,
    "resnet": _resnet_parameters,
    "dual": _dual_parameters,
}
# Values kept for the backward pass, given the slots of a whole step.
_KEPT: dict[str, Callable[[EncoderSpec, Modality, float], float]] = {
    "transformer": _trunk_values,
    "vit": _vit_values,
    "wave": _wave_values,
    "convnet": _conv_values,
    "resnet": _conv_values,
    "dual": _dual_values,
}
