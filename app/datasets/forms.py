"""How the multipart bodies and the byte replies of this domain read in OpenAPI; the parser itself is in intake.py."""

from __future__ import annotations

from typing import Any

from app.datasets.schemas import OUR_COLUMNS
from app.errors import ApiError
from app.responses import ErrorReply
from ssl_core.modalities import MODALITIES

_BINARY = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}


def _body(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _reply(code: str, message: str, param: str | None = None, type: str = ApiError.type) -> dict[str, Any]:
    example = {"error": {"message": message, "type": type, "param": param, "code": code}}
    return {"model": ErrorReply, "content": {"application/json": {"example": example}}}


UPLOAD_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "description": "The form cannot be read, or broke off: `malformed_multipart`, `too_many_parts`, "
        "`upload_broken_off`, `upload_stalled`. Nothing was kept.",
        **_reply("malformed_multipart", "The form cannot be read: the body ends before the closing boundary."),
    },
    413: {
        "description": "Too large, told before the bytes are read where the length is declared: `too_large`, "
        "`quota_exceeded`.",
        **_reply("quota_exceeded", "1099511627776 bytes do not fit: this project has 52 of 100 bytes left."),
    },
    422: {
        "description": "A field cannot be used: `empty`, `filename_missing`, `missing_field`, `unknown_field`, "
        "`duplicate_field`, `invalid_value`, `malformed_json`, `encoding_error`.",
        **_reply("empty", "The file is empty.", "file"),
    },
    507: {
        "description": "The store is full: `disk_full`.",
        **_reply("disk_full", "The store has no room for this file.", type="server_error"),
    },
}
EXPIRED: dict[str, Any] = {
    "description": "The upload's time has passed: `upload_expired`.",
    **_reply("upload_expired", "This upload has expired; begin a new one.", "id"),
}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "the file", "content": {"application/octet-stream": {"schema": _BINARY}}},
    206: {"description": "the one range asked for", "content": {"application/octet-stream": {"schema": _BINARY}}},
    304: {"description": "the file that `If-None-Match` names is the current one"},
    412: {
        "description": "`If-Match` names other bytes: `precondition_failed`",
        **_reply("precondition_failed", "The file is not the one that `If-Match` names.", "If-Match"),
    },
    416: {
        "description": "the range lies outside the file, or there are several: `invalid_range`",
        **_reply("invalid_range", "Ask for one range within the 12 bytes of the file.", "Range"),
    },
}
DATASET_FIELDS = frozenset({"name", "modality", "columns", "metadata"})
FILE_FIELDS = frozenset({"purpose"})
PART_FIELDS = frozenset({"sha256"})
DATASET: dict[str, Any] = {
    "responses": UPLOAD_ERRORS,
    "openapi_extra": _body(
        ["file"],
        {
            "file": {**_BINARY, "description": "the data; its name tells the format together with its first bytes"},
            "name": {**_TEXT, "maxLength": 255, "description": "default: the file's name"},
            "modality": {**_TEXT, "enum": sorted(MODALITIES), "description": "default: told from the bytes"},
            "columns": {
                **_TEXT,
                "contentMediaType": "application/json",
                "description": f"JSON: which columns of yours hold ours; ours are {', '.join(OUR_COLUMNS)}",
                "examples": ['{"text": "body", "label": "topic"}'],
            },
            "metadata": {
                **_TEXT,
                "contentMediaType": "application/json",
                "description": "JSON: up to 16 strings of your own",
                "examples": ['{"source": "forum"}'],
            },
        },
    ),
}
FILE: dict[str, Any] = {
    "responses": UPLOAD_ERRORS,
    "openapi_extra": _body(
        ["file", "purpose"],
        {"file": _BINARY, "purpose": {**_TEXT, "enum": ["fine-tune", "pretrain", "batch"]}},
    ),
}
PART: dict[str, Any] = {
    "responses": UPLOAD_ERRORS,
    "openapi_extra": _body(
        ["data"],
        {
            "data": {**_BINARY, "description": "the bytes of this part"},
            "sha256": {**_TEXT, "pattern": "^[0-9a-f]{64}$", "description": "checked against what arrived"},
        },
    ),
}
