"""What a request must look like before a route sees it: media types, size, and JSON read strictly (B1–B9).

JSON itself is read by `ssl_core.requests.strict_json`.
"""

from __future__ import annotations

import asyncio
import re
from email.message import Message
from typing import Any

from fastapi import Request

from app.errors import ApiError, NotAcceptable, RequestTimeout, TooLarge, Unprocessable, UnsupportedMedia
from app.threads import in_thread
from ssl_core.errors import SpecError
from ssl_core.requests import strict_json

BODY_SECONDS = 60.0
"""For a whole body that is held in memory; files are streamed, and may take their time."""
_LARGE = 1 << 18  # bytes of JSON that are parsed in a thread, off the event loop


async def read_json(request: Request, limit: int, required: bool) -> tuple[bytes, Any]:
    """The body and its value; (b"", None) when there is none and none is `required`."""
    _check_encoding(request)
    raw = await read_capped(request, limit)
    if not raw:
        if required:
            raise ApiError("body_required", "This request needs a JSON body.")
        return raw, None
    _check_content_type(request)
    if len(raw) < _LARGE:
        return raw, parse_json(raw)
    return raw, await in_thread(parse_json, raw)


async def read_capped(request: Request, limit: int) -> bytes:
    """The body, refused before it is buffered when it is over `limit` bytes, declared or not (B9).

    Raises TooLarge, and RequestTimeout for one that comes too slowly.
    """
    refusal = TooLarge("body_too_large", f"The body is larger than the {limit} bytes allowed here.")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > limit:
        refusal.headers["Connection"] = "close"
        raise refusal
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _joined(request, limit, refusal)
    except TimeoutError:
        raise RequestTimeout(f"The body had not arrived after {BODY_SECONDS:g} seconds.") from None


async def _joined(request: Request, limit: int, refusal: TooLarge) -> bytes:
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            refusal.headers["Connection"] = "close"
            raise refusal
        parts.append(chunk)
    return b"".join(parts)


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text; raises 400 `malformed_json`, or 422 naming the field that cannot be taken."""
    try:
        return strict_json.parse(raw)
    except SpecError as error:
        if error.code == strict_json.MALFORMED:
            raise ApiError(error.code, error.message) from None
        raise Unprocessable(error.code, error.message, error.param) from None


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        message = "Content-Encoding is not supported here; send the body uncompressed."
        raise UnsupportedMedia(message, "Content-Encoding")


def _check_content_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    message = Message()
    message["content-type"] = given
    if not given or message.get_content_type() != "application/json":
        raise UnsupportedMedia("The body must be JSON, with `Content-Type: application/json`.", "Content-Type")
    charset = str(message.get_param("charset", "utf-8")).lower()
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise ApiError("malformed_json", "The body must be JSON in UTF-8; no other charset is read.")


def check_accept(request: Request, produced: set[str]) -> None:
    """406 unless one of the media types `produced` here is acceptable to the caller."""
    given = ",".join(request.headers.getlist("accept")).strip()
    if not given:
        return
    for part in given.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        refused = any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
        if not refused and any(_covers(media, each) for each in produced):
            return
    raise NotAcceptable(f"This answers {', '.join(sorted(produced))}; the Accept header allows none of it.")


def _covers(asked: str, produced: str) -> bool:
    return asked in {"*/*", produced, f"{produced.split('/')[0]}/*"}
