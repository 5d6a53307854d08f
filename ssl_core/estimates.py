"""What a job will need: parameters, bytes and steps, predicted without torch. Imports without torch."""

from __future__ import annotations

import math
from itertools import pairwise

from pydantic import Field

from ssl_core.modalities.base import Modality
from ssl_core.spec import Budget, DatasetFacts, EncoderSpec
from ssl_core.values import Value

_CHARACTERS_PER_TOKEN = 4.0
_BYTES_PER_PARAMETER = 16
"""fp32 weight, gradient and AdamW's two moments."""
_PROCESS_BYTES = 400 * 2**20
"""Interpreter, torch and its libraries."""
_RESNET_PARAMETERS = {18: 11_200_000, 50: 23_500_000}
# float32 values kept for the backward pass, per input pixel and unit of first-stage width.
_CONV_VALUES = {"convnet": 13.0, "resnet18": 10.0, "resnet50": 42.0}


class Estimate(Value):
    """The answer of `POST /v1/jobs/estimate`. Predictions, good to about a factor of two."""

    steps: int | None = Field(description="None where the budget is `minutes`: only a measurement can tell")
    examples_per_epoch: int
    parameters: int = Field(description="of the encoder")
    memory_bytes: int


def samples(dataset: DatasetFacts, modality: Modality, unit: str) -> int:
    """Samples of a dataset in that unit: documents are counted, packed rows predicted from four characters a token."""
    if unit == "document":
        return dataset.rows
    length = int(getattr(modality, "max_length", 1))
    return max(1, math.ceil(dataset.characters / _CHARACTERS_PER_TOKEN / length))


def tokens_per_sample(dataset: DatasetFacts, modality: Modality, unit: str) -> float:
    """Mean tokens of a sample (1 for pictures)."""
    length = getattr(modality, "max_length", None)
    if length is None:
        return 1.0
    if unit == "row":
        return float(length)
    return min(float(length), max(1.0, dataset.characters / _CHARACTERS_PER_TOKEN / max(1, dataset.rows)))


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
    width = backbone.width
    if backbone.family == "transformer":
        matrices = 2 if backbone.mlp == "gelu" else 3
        layer = width * width * (4 + matrices * backbone.mlp_ratio)
        positions = backbone.max_positions * width if backbone.positions == "learned" else 0
        return int(backbone.depth * layer + int(getattr(modality, "vocab_size", 0)) * width + positions)
    if backbone.family == "resnet":
        return int(_RESNET_PARAMETERS[backbone.depth] * (width / 64) ** 2)
    widths = [width * 2**stage for stage in range(backbone.depth)]
    stages = sum(9 * before * after + 18 * after * after for before, after in pairwise(widths))
    return int(9 * width * (3 + width) + stages)


def memory_bytes(backbone: EncoderSpec, modality: Modality, batch_size: int, views: tuple[str, ...], half: bool) -> int:
    """Peak memory of a training step.

    16 bytes a parameter (AdamW in fp32), activations after Korthikanti et al. 2022, "Reducing activation
    recomputation", arXiv 2205.05198, equation 1 without the attention map (a fused kernel keeps none): 34 bytes of half
    precision for each token, layer and channel; for convolutions a count of kept values per pixel; plus the process.
    """
    parameters = encoder_parameters(backbone, modality)
    value = 2 if half else 4
    if backbone.family == "transformer":
        # A span is shorter than what is read of a document.
        lengths = [getattr(modality, "span_max" if view == "span" else "max_length", 256) for view in views]
        tokens = batch_size * sum(lengths)
        kept = 17 * value * tokens * backbone.width * backbone.depth
        # Vocabulary logits at the masked fifth of the tokens: value, softmax and gradient.
        kept += int(0.2 * tokens) * int(getattr(modality, "vocab_size", 0)) * 4 * 3
    else:
        name = f"resnet{backbone.depth}" if backbone.family == "resnet" else "convnet"
        pixels = int(getattr(modality, "size", 32)) ** 2 / {"small": 1, "medium": 4, "large": 16}[backbone.stem]
        kept = int(_CONV_VALUES[name] * batch_size * len(views) * pixels * backbone.width * value)
    return _PROCESS_BYTES + _BYTES_PER_PARAMETER * parameters + kept
