"""Sending stored bytes to a browser or a client: resumable, verifiable, and never run as a page (R17, B75)."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from app.errors import ApiError, Unavailable
from app.storage import Store

_RANGES = re.compile(r"bytes=[\d\s,-]+")
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


class RangeNotSatisfiable(ApiError):
    """Outside the file, or more than one range."""

    status: ClassVar[int] = 416


class PreconditionFailed(ApiError):
    """`If-Match` names other bytes."""

    status: ClassVar[int] = 412


@dataclass(frozen=True)
class Download:
    """One stored file as it is offered. `sha256` is hexadecimal; `filename` is what the user called it."""

    key: str
    size: int
    sha256: str
    filename: str
    media_type: str = "application/octet-stream"


def file_response(request: Request, store: Store, file: Download) -> Response:
    """200 with the whole file, 206 with the one range asked for, or 304. Call it from a thread (a `def` route).

    `ETag` is the sha256 and strong; `If-Range` with another tag gives the whole file; `Content-Digest` (RFC 9530)
    is sent with a whole file, `Repr-Digest` always.

    Raises:
        RangeNotSatisfiable: 416 `invalid_range`.
        PreconditionFailed: 412 `precondition_failed`.
        Unavailable: 503 `storage_unavailable`, the row is there and its bytes are not.
    """
    headers = _headers(file)
    asked = request.headers
    if "if-match" in asked and not _names(asked["if-match"], file.sha256):
        raise PreconditionFailed("precondition_failed", "The file is not the one that `If-Match` names.", "If-Match")
    if "if-none-match" in asked and _names(asked["if-none-match"], file.sha256):
        return Response(status_code=304, headers={"ETag": headers["ETag"], "Cache-Control": headers["Cache-Control"]})
    current = "if-range" not in asked or asked["if-range"].strip() == headers["ETag"]
    part = _range(asked.get("range"), file.size) if current else None
    _check_stored(store, file)
    if part is None:
        digest = {"Content-Digest": headers["Repr-Digest"], "Content-Length": str(file.size)}
        return StreamingResponse(store.stream(file.key, 0, file.size), 200, headers | digest, file.media_type)
    start, end = part
    about = {"Content-Range": f"bytes {start}-{end - 1}/{file.size}", "Content-Length": str(end - start)}
    return StreamingResponse(store.stream(file.key, start, end), 206, headers | about, file.media_type)


def bytes_response(content: bytes, filename: str) -> Response:
    """200 with a small file that was made for this request, under the same headers; no ranges."""
    file = Download("", len(content), hashlib.sha256(content).hexdigest(), filename)
    return Response(content, 200, _headers(file) | {"Accept-Ranges": "none"}, file.media_type)


def disposition(filename: str) -> str:
    """`Content-Disposition` by RFC 6266: a plain name for old clients, the true one percent-encoded."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%/;]', "_", filename) or "download"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _headers(file: Download) -> dict[str, str]:
    encoded = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    return {
        "ETag": f'"{file.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(file.filename),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Repr-Digest": f"sha-256=:{encoded}:",
        "X-Content-Type-Options": "nosniff",
    }


def _names(header: str, sha256: str) -> bool:
    return header.strip() == "*" or sha256 in _ETAG.findall(header)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """[start, end) of the one range asked for; None where there is none. A unit that we do not know is no range."""
    if header is None or not _RANGES.fullmatch(header.strip()):
        return None
    one = _RANGE.fullmatch(header.strip())
    refused = RangeNotSatisfiable(
        "invalid_range",
        f"Ask for one range within the {size} bytes of the file.",
        "Range",
        headers={"Content-Range": f"bytes */{size}"},
    )
    if one is None or one.groups() == ("", ""):
        raise refused
    first, last = one.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise refused
    return start, end


def _check_stored(store: Store, file: Download) -> None:
    # The status line goes out before the first byte is read: look now, while an error can still be told.
    try:
        stored = store.size(file.key)
    except FileNotFoundError:
        stored = -1
    if stored != file.size:
        raise Unavailable("storage_unavailable", "The bytes of this file cannot be read just now.")
