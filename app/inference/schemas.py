"""API shapes of embeddings (exactly OpenAI's) and predictions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from ssl_core.modalities import MODALITIES
from ssl_core.modalities.base import Column
from ssl_core.sampling import Sampling

MAX_INPUTS = 2048
MAX_CHARACTERS = 1_000_000
MAX_TOKENS = 100_000

_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": MAX_TOKENS}
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS}


def _object(**properties: Any) -> dict[str, Any]:
    """A closed object whose every field is required."""
    closed = {"additionalProperties": False, "required": list(properties)}
    return {"type": "object", "properties": properties, **closed}


def _content(column: Column) -> dict[str, Any]:
    """A string, or a file as a data URI."""
    if not column.media:
        return _TEXT
    return {"type": "string", "description": f"`data:{column.media[0]};base64,…`; types: {', '.join(column.media)}"}


_ITEM = {
    "anyOf": [
        _TEXT,
        _TOKENS,
        *(_object(**{name: _content(column) for name, column in one.columns.items()}) for one in MODALITIES.values()),
        _object(dataset={"type": "string", "description": "a ready dataset"}, row={"type": "integer", "minimum": 0}),
    ]
}
_SEVERAL = {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": MAX_INPUTS}
# Read by hand in `items.py`: a union's own error would name every shape that did not fit instead of the item at fault.
Inputs = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [*_ITEM["anyOf"], _SEVERAL],
            "description": "a string, a list of token ids, an item, or a list of up to 2,048 of these. "
            "A list of integers is one input of tokens. A text longer than the model reads is cut; `usage` counts "
            "the tokens that were read.",
        }
    ),
]
ModelId = Annotated[str, Field(min_length=1, max_length=64, description="id of a model", examples=["mdl_01jd3w9qz2"])]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EmbeddingRequest(_Request):
    """What to embed, with which model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "mdl_01jd3w9qz2", "input": ["first text", {"text": "second text"}]}]}
    )

    model: ModelId
    input: Inputs
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="`base64`: little-endian float32, a quarter of the bytes"
    )
    dimensions: int | None = Field(
        default=None, ge=1, le=65_536, description="keep the first so many numbers and give the vector length 1 again"
    )
    pooling: Literal["mean", "cls", "max"] = Field(
        default="mean", description="over the tokens or patches; `cls`: the first token, where the model has tokens"
    )
    precision: Literal["fp32", "int8"] = Field(
        default="fp32",
        description="`int8`: 8-bit weights, faster on a CPU; the header `Groundwork-Precision` tells the least cosine "
        "to float32 of the rows that were tried, and below 0.99 it is refused with `precision_lost`",
    )
    user: str | None = Field(default=None, max_length=512, description="accepted for OpenAI clients, not used")


class PredictionRequest(_Request):
    """What to predict, with which fine-tuned model; or what to write, with which language model."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "mdl_01jd3w9qz2", "input": ["who won the match?"]}]}
    )

    model: ModelId
    input: Inputs
    sampling: Sampling | None = Field(default=None, description="how a model pretrained on next tokens goes on")
    seed: int = Field(default=0, ge=0, lt=2**31, description="of what is drawn; input n draws with seed + n")


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
