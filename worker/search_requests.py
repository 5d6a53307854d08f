"""The bodies of the inference role's `/search` and `/preview` (docs/contracts.md §6)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from worker.inference_requests import EmbedRequest, InputItem

MAX_RESULTS = 100
MAX_DIMENSIONS = 65_536


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VectorFile(_Closed):
    """A file that an `embed` job left."""

    path: Annotated[str, Field(pattern=r"^[a-z]+\.[a-z]+$")]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SearchRequest(_Closed):
    """Body of `POST /search`: in which vectors, and near to what: one item to embed, a vector, or a row of theirs."""

    job_id: Annotated[str, Field(pattern=r"^job_[0-9a-z]+$")]
    files: Annotated[list[VectorFile], Field(min_length=1, max_length=3)]
    query: EmbedRequest | None = None
    vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_DIMENSIONS)] | None = None
    row: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10
    label: str | None = None
    exact: bool = False

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        if sum(each is not None for each in (self.query, self.vector, self.row)) != 1:
            raise ValueError("exactly one of query, vector and row")
        return self


class PreviewRequest(_Closed):
    """Body of `POST /preview`: contents of rows, to be made small enough to look at."""

    modality: str
    items: Annotated[list[InputItem], Field(min_length=1, max_length=MAX_RESULTS)]
