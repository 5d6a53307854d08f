"""API shapes of the OpenAI-shaped doors. A file is a dataset under another name, or one that is kept as it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.datasets.schemas import DatasetForm, form_refusal
from app.datasets.service import Purpose
from app.datasets.tables import Dataset, Upload, UploadPart
from app.fine_tuning.results import FILENAME, Result
from app.pagination import Listing

_FILE: dict[str, Any] = {
    "id": "ds_01jd3w8m6k", "object": "file", "bytes": 13_400_211, "created_at": 1767225600, "filename": "posts.jsonl",
    "purpose": "fine-tune", "status": "processed", "status_details": None, "expires_at": None,
}  # fmt: skip
_PART: dict[str, Any] = {
    "id": "part_01jd3w8qqq", "object": "upload.part", "created_at": 1767225600, "upload_id": "upl_01jd3w8m6k",
    "bytes": 67108864, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}  # fmt: skip
_UPLOAD: dict[str, Any] = {
    "id": "upl_01jd3w8m6k", "object": "upload", "bytes": 13_400_211, "created_at": 1767225600,
    "expires_at": 1767312000, "filename": "posts.jsonl", "mime_type": "application/jsonl", "purpose": "fine-tune",
    "sha256": None, "status": "pending", "received_bytes": 8_388_608, "file": None,
}  # fmt: skip
_STATUS: dict[str, Literal["uploaded", "processed", "error"]] = {
    "ready": "processed", "kept": "processed", "invalid": "error",
}  # fmt: skip
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
PartId = Annotated[str, Field(max_length=64)]


class FileObject(BaseModel):
    """A dataset as OpenAI shows a file."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FILE]})

    id: str = Field(description="the dataset's id")
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Purpose | Literal["batch_output", "fine-tune-results"]
    status: Literal["uploaded", "processed", "error"] = Field(description="`processed` once the dataset is ready")
    status_details: str | None = Field(description="why it is in error")
    expires_at: int | None = None


class FileList(Listing[FileObject]):
    """One page of files."""


class FileDeleted(BaseModel):
    """The answer to a delete."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "ds_01jd3w8m6k", "object": "file", "deleted": True}]}
    )

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileForm(BaseModel):
    """The text fields of `POST /v1/files`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    purpose: Purpose


class UploadCreate(DatasetForm):
    """What will come, before it comes. The dataset's fields may be given, too."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"filename": "posts.jsonl", "bytes": 13400211, "mime_type": "application/jsonl", "purpose": "fine-tune"}
    ]})  # fmt: skip

    filename: str = Field(min_length=1, max_length=255)
    bytes: int = Field(ge=0, description="of the whole file")
    mime_type: str = Field(max_length=255)
    purpose: Purpose
    sha256: Sha256 | None = Field(default=None, description="of the whole file; checked when it is completed")


class UploadComplete(BaseModel):
    """The parts in order, and what they must add up to."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"part_ids": ["part_01jd3w8m6k"]}]}
    )

    part_ids: list[PartId] = Field(max_length=10_000)
    md5: Md5 | None = Field(default=None, description="of the whole file")
    sha256: Sha256 | None = Field(default=None, description="of the whole file")


class PartObject(BaseModel):
    """A durable part of an upload."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PART]})

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
    bytes: int
    sha256: str


class UploadObject(BaseModel):
    """A file that arrives in parts."""

    model_config = ConfigDict(json_schema_extra={"examples": [_UPLOAD]})

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    mime_type: str
    purpose: Purpose
    sha256: str | None
    status: Literal["pending", "completed", "cancelled", "expired"]
    received_bytes: int = Field(description="in the parts that are durable")
    file: FileObject | None = Field(description="once it is completed")


class UploadDetail(UploadObject):
    """An upload with the parts that are durable: what a client that lost its place goes on from."""

    parts: list[PartObject]


def read_file_form(fields: dict[str, str]) -> FileForm:
    """The checked fields. Raises Unprocessable that names the field."""
    try:
        return FileForm.model_validate(fields)
    except ValidationError as error:
        raise form_refusal(error, {**fields}) from None


def check_file_form(fields: dict[str, str]) -> None:
    """The fields that came before the file; the purpose may still follow it."""
    if fields:
        read_file_form(fields)


def as_file(row: Dataset) -> FileObject:
    """The API shape of a dataset at this door."""
    return FileObject(
        id=row.id, bytes=row.bytes, created_at=row.created_ms // 1000, filename=row.filename, purpose=row.purpose,
        status=_STATUS.get(row.status, "uploaded"), status_details=row.error["message"] if row.error else None,
    )  # fmt: skip


def as_result(result: Result) -> FileObject:
    """The API shape of a training's curves at this door."""
    return FileObject(
        id=result.id, bytes=len(result.content), created_at=result.created_at, filename=FILENAME,
        purpose="fine-tune-results", status="processed", status_details=None,
    )  # fmt: skip


def as_part(row: UploadPart) -> PartObject:
    """The API shape of a part."""
    return PartObject(
        id=row.id, created_at=row.created_ms // 1000, upload_id=row.upload_id, bytes=row.size, sha256=row.sha256
    )


def as_upload(row: Upload, received: int, file: Dataset | None = None) -> UploadObject:
    """The API shape of an upload. `received` counts the bytes in its durable parts."""
    return UploadObject(
        id=row.id, bytes=row.bytes, created_at=row.created_ms // 1000, expires_at=row.expires_ms // 1000,
        filename=row.filename, mime_type=row.mime_type, purpose=row.purpose, sha256=row.sha256, status=row.status,
        received_bytes=received, file=None if file is None else as_file(file),
    )  # fmt: skip


def as_detail(row: Upload, parts: list[UploadPart], file: Dataset | None) -> UploadDetail:
    """The same with its parts."""
    received = row.bytes if row.status == "completed" else sum(part.size for part in parts)
    shown = as_upload(row, received, file)
    return UploadDetail(**dict(shown), parts=[as_part(part) for part in parts])
