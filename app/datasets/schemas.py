"""API shapes of datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.datasets.service import Purpose, Status
from app.datasets.tables import Dataset
from app.errors import ApiError, Unprocessable
from app.pagination import Listing
from app.protocol import parse_json
from app.validation import refusal
from ssl_core.modalities import COLUMNS, MODALITIES
from ssl_core.spec import Metadata
from ssl_core.targets import TARGET_COLUMNS

_EXAMPLE: dict[str, Any] = {
    "id": "ds_01jd3w8m6k", "object": "dataset", "created_at": 1767225600, "name": "forum posts",
    "filename": "posts.jsonl", "purpose": "pretrain", "bytes": 13_400_211, "sha256": "9f2c…", "status": "ready",
    "modality": "text", "columns": {"text": "body"}, "metadata": {}, "rows": 18_846, "labelled": 0, "bad_rows": 3,
    "digest": "4be0…", "error": None, "job": "job_01jd3w9aaa", "finished_at": 1767225612,
}  # fmt: skip
Name = Annotated[str, Field(min_length=1, max_length=255)]
ColumnName = Annotated[str, Field(min_length=1, max_length=255)]
OUR_COLUMNS = ("label", "file_name", *COLUMNS, *TARGET_COLUMNS)
"""What an owner may say which column of theirs is."""
if TYPE_CHECKING:
    OurColumn: TypeAlias = str
else:
    OurColumn = Literal[OUR_COLUMNS]


class DatasetError(BaseModel):
    """Why a dataset is invalid."""

    code: str | None
    message: str | None
    param: str | None = Field(description="`file:row` at fault, where one is")


class DatasetObject(BaseModel):
    """An uploaded file, and what ingest made of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    object: Literal["dataset"] = "dataset"
    created_at: int = Field(description="unix seconds")
    name: str
    filename: str
    purpose: Purpose
    bytes: int = Field(description="of the uploaded file")
    sha256: str = Field(description="of the uploaded file")
    status: Status = Field(description="`uploaded`, then `ingesting`, then `ready` or `invalid`")
    modality: str | None = Field(description="as declared, then as found")
    columns: dict[str, str]
    metadata: dict[str, str]
    rows: int | None = Field(description="good rows; null until ready")
    labelled: int | None = Field(description="rows that carry a label")
    bad_rows: int | None = Field(description="rows left out; `GET …/errors` lists them")
    digest: str | None = Field(description="identity of the canonical rows; what jobs are pinned to")
    error: DatasetError | None = Field(description="why it is invalid")
    job: str | None = Field(description="the ingest job")
    finished_at: int | None = Field(description="unix seconds at which ingest ended")


class DatasetList(Listing[DatasetObject]):
    """One page of datasets."""


class DatasetDeleted(BaseModel):
    """The answer to a delete."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "ds_01jd3w8m6k", "object": "dataset", "deleted": True, "models": []}]}
    )

    id: str
    object: Literal["dataset"] = "dataset"
    deleted: Literal[True] = True
    models: list[str] = Field(description="that stay though their jobs read it, or began with such a one")


class DatasetPreview(BaseModel):
    """The first rows as a person would look at them; pictures are small data URIs."""

    object: Literal["dataset.preview"] = "dataset.preview"
    id: str
    rows: list[dict[str, Any]] = Field(examples=[[{"text": "Hello there", "label": "greeting", "source": "a.csv:1"}]])


class DatasetProfile(BaseModel):
    """Counts, lengths, classes, duplicates (docs/contracts.md §3)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "object": "dataset.profile", "id": "ds_01jd3w8m6k", "modality": "text", "rows": 1000,
                    "labelled": 100, "classes": ["hockey", "space"], "class_counts": {"hockey": 52, "space": 48},
                    "characters": 812_345, "lengths": {"min": 12, "median": 640, "p95": 2210, "max": 9001},
                    "exact_duplicates": 3, "near_duplicates": 17, "near_duplicates_examined": 1000, "bad_rows": 1,
                }
            ]
        },
    )  # fmt: skip

    object: Literal["dataset.profile"] = "dataset.profile"
    id: str
    modality: str
    rows: int
    labelled: int = 0


class BadRow(BaseModel):
    """One row, or one file of an archive, that could not be taken."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"file": "posts.jsonl", "row": 17, "code": "missing_field", "message": "the row has no `text`"}
    ]})  # fmt: skip

    file: str | None = None
    row: int | None = None
    code: str
    message: str


class BadRowList(BaseModel):
    """The bad rows of a dataset, in file order, at most 1,000 of them."""

    object: Literal["list"] = "list"
    data: list[BadRow]
    has_more: bool = Field(description="whether there were more bad rows than are kept")

    @classmethod
    def of_lines(cls, lines: list[bytes], counted: int) -> BadRowList:
        """From the lines of `errors.jsonl`, and how many bad rows ingest counted."""
        rows = [BadRow.model_validate_json(line) for line in lines]
        return cls(data=rows, has_more=counted > len(rows))

    @classmethod
    def of_invalid(cls, row: Dataset) -> BadRowList:
        """The one thing that made the whole dataset invalid; its `param` is `file:row` where a row is at fault."""
        error = row.error or {}
        file, _, number = str(error.get("param") or "").rpartition(":")
        at = {"file": file, "row": int(number)} if file and number.isdecimal() else {"file": error.get("param")}
        bad = BadRow(code=error.get("code") or "invalid", message=error.get("message") or "", **at)
        return cls(data=[bad], has_more=False)


class DatasetForm(BaseModel):
    """The text fields of `POST /v1/datasets`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name | None = None
    modality: str | None = None
    columns: dict[OurColumn, ColumnName] = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=dict, max_length=16)

    @field_validator("modality")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in MODALITIES:
            raise ValueError(f"unknown modality {value[:80]!r}; known: {', '.join(MODALITIES)}")
        return value


def read_form(fields: dict[str, str]) -> DatasetForm:
    """The checked fields; `columns` and `metadata` arrive as JSON. Raises Unprocessable that names the field."""
    body: dict[str, Any] = dict(fields)
    for name in {"columns", "metadata"} & body.keys():
        body[name] = _json(name, fields[name])
    try:
        return DatasetForm.model_validate(body)
    except ValidationError as error:
        raise form_refusal(error, body) from None


def form_refusal(error: ValidationError, body: dict[str, Any]) -> Unprocessable:
    """A form's wrong field, told like a wrong field of a JSON body."""
    return refusal([{**each, "loc": ("body", *each["loc"])} for each in error.errors()], body)


def as_object(row: Dataset) -> DatasetObject:
    """The API shape of a row."""
    return DatasetObject(
        id=row.id, created_at=row.created_ms // 1000, name=row.name, filename=row.filename,
        purpose=row.purpose, bytes=row.bytes, sha256=row.sha256, status=row.status, modality=row.modality,
        columns=row.columns, metadata=row.meta, rows=row.rows, labelled=row.labelled, bad_rows=row.bad_rows,
        digest=row.digest, error=DatasetError(**row.error) if row.error else None, job=row.job_id,
        finished_at=None if row.finished_ms is None else row.finished_ms // 1000,
    )  # fmt: skip


def _json(name: str, text: str) -> Any:
    try:
        return parse_json(text.encode())
    except ApiError as error:
        inner = f"{name}.{error.param}" if error.param else name
        raise Unprocessable(error.code, f"`{name}`: {error.message}", inner) from None
