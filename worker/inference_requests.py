"""The bodies that the inference role takes (docs/contracts.md §6)."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ssl_core.inference import Item
from ssl_core.modalities import COLUMNS, MODALITIES
from ssl_core.sampling import Sampling
from worker.inference_errors import Refused

MAX_ITEMS, MAX_REQUESTS = 2048, 64


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class InputItem(RootModel[dict[str, str | list[int]]]):
    """`{"tokens": [...]}`, or the content of a modality by column; files as base64."""

    model_config = ConfigDict(strict=True)

    def item(self, number: int) -> Item:
        """What `ssl_core.inference` reads. Raises Refused `invalid_input`."""
        where, tokens = f"input[{number}]", self.root.get("tokens")
        if isinstance(tokens, list) and len(self.root) == 1:
            return tokens
        if not any(self.root.keys() == one.columns.keys() for one in MODALITIES.values()):
            known = "; ".join(", ".join(one.columns) for one in MODALITIES.values())
            raise Refused(422, "invalid_input", f"an item has exactly one of these: tokens; {known}", where)
        content = self.contents(number)
        return content if len(content) > 1 else next(iter(content.values()))

    def contents(self, number: int) -> dict[str, str | bytes]:
        """Content by column, files as bytes. Raises Refused `invalid_input`."""
        where = f"input[{number}]"
        unknown = self.root.keys() - COLUMNS.keys()
        if unknown:
            raise Refused(422, "invalid_input", f"there is no content called {min(unknown)!r}", where)
        return {name: _content(name, value, where) for name, value in self.root.items()}


def _content(name: str, value: str | list[int], where: str) -> str | bytes:
    if not isinstance(value, str):
        raise Refused(422, "invalid_input", f"{name} is not a string", where)
    try:
        return base64.b64decode(value, validate=True) if COLUMNS[name].media else value
    except ValueError as error:
        raise Refused(422, "invalid_input", f"{name} is not base64", where) from error


class PredictRequest(_Closed):
    """Which model, which items."""

    model_id: str
    digest: str
    items: Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS)]


class AnswerRequest(PredictRequest):
    """Body of `POST /predict`; `sampling` and `seed` for a model that writes."""

    sampling: Sampling | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class EmbedRequest(PredictRequest):
    """Body of `POST /embed`. `dimensions`: keep that many numbers of each vector and give it length 1 again;
    `traceparent`: of one among many, which share their headers."""

    pooling: Literal["mean", "cls", "max"] = "mean"
    precision: Literal["fp32", "int8"] = "fp32"
    dimensions: Annotated[int | None, Field(ge=1)] = None
    traceparent: str | None = None


class ManyRequest(_Closed):
    """Body of `POST /embed_many`: requests of several callers."""

    requests: Annotated[list[EmbedRequest], Field(min_length=1, max_length=MAX_REQUESTS)]
