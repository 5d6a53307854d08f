"""API shapes of the search among an embedded dataset's rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, WithJsonSchema

from app.inference.schemas import Usage
from ssl_core.requests.shapes import ITEM

MAX_RESULTS = 100
# Read by hand in `app.inference.items`: a union's own error would name every shape that did not fit.
Query = Annotated[
    Any,
    WithJsonSchema(
        {
            **ITEM,
            "description": "what rows are to be near to, in the spellings of `input` at the embeddings endpoint: a "
            "text, a picture, a sound, a chain, or a row of a dataset. A row of the dataset that is searched needs no "
            "model: its vector is there already.",
        }
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SearchFilter(_Request):
    """Which rows count."""

    label: str = Field(max_length=10_000, description="only rows with this label; always exact")


class SearchRequest(_Request):
    """What to look for: `query`, or `vector` where the caller embedded it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "who won the match?", "limit": 3, "model": "mdl_01jd3w9qz2"}]}
    )

    query: Query | None = None
    vector: list[FiniteFloat] | None = Field(
        default=None, min_length=1, max_length=65_536, description="in place of `query`: a vector of the same model"
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=64, description="needed where several models have embedded this dataset"
    )
    limit: int = Field(default=10, ge=1, le=MAX_RESULTS, description="rows wanted")
    filter: SearchFilter | None = None
    exact: bool = Field(default=False, description="look at every row, though there is an index")
    preview: bool = Field(default=True, description="show what is in the rows")


class SearchResult(BaseModel):
    """One row that is near to the query."""

    object: Literal["search.result"] = "search.result"
    row: int = Field(description="its number in the dataset, from 0")
    source: str | None = Field(description="`file:row` of the upload")
    label: str | None
    score: float = Field(description="cosine of the two vectors: 1 = same direction")
    preview: dict[str, Any] | None = Field(
        description="as in the dataset's preview: texts cut, pictures and spectrograms as small data URIs; null where "
        "it was not asked for or cannot be made",
        examples=[{"text": "the home side won by two goals"}],
    )


class SearchIndex(BaseModel):
    """How the rows were found."""

    kind: Literal["exact", "approximate"] = Field(description="`exact`: every row was looked at")
    rows: int = Field(description="that were searched, before any filter")
    dimensions: int = Field(description="of the vectors")
    recall: float | None = Field(
        description="share of the ten nearest rows that the index finds, measured when it was made on rows of the "
        "dataset; null where every row was looked at"
    )


class SearchResults(BaseModel):
    """The nearest rows, nearest first."""

    object: Literal["list"] = "list"
    data: list[SearchResult]
    model: str = Field(description="whose vectors were searched")
    job: str = Field(description="the `embed` job that made them")
    index: SearchIndex
    usage: Usage
