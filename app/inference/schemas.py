"""API shapes of embeddings (exactly OpenAI's) and predictions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ssl_core.requests import shapes
from ssl_core.requests.shapes import PredictionRequest

__all__ = ["Embedding", "EmbeddingList", "EmbeddingRequest", "Prediction", "PredictionList", "PredictionRequest"]


class EmbeddingRequest(shapes.EmbeddingRequest):
    """What to embed, with which model."""

    precision: Literal["fp32", "int8"] = Field(
        default="fp32",
        description="`int8`: 8-bit weights, faster on a CPU; the header `Groundwork-Precision` tells the least cosine "
        "to float32 of the rows that were tried, and below 0.99 it is refused with `precision_lost`",
    )


class Usage(BaseModel):
    """Tokens that the model read, after cutting at its `max_length`; a picture counts as one."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """One vector, as the encoder made it (not normalised, unless `dimensions` was given)."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="numbers, or base64 of little-endian float32")


class EmbeddingList(BaseModel):
    """The vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Prediction(BaseModel):
    """One answer; which fields it has, the task decides. Classification: `label` and `probabilities`.

    Of a model without a task: pretrained on next tokens, `text` (how the input goes on), `tokens` and `finish_reason`;
    on masked tokens, `text` (with every mask filled in) and `fills` (each mask's likeliest tokens).
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"object": "prediction", "index": 0, "label": "sport", "probabilities": {"politics": 0.1, "sport": 0.9}}
            ]
        },
    )

    object: Literal["prediction"] = "prediction"
    index: int


class PredictionList(BaseModel):
    """The answers in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Prediction]
    model: str
    usage: Usage
