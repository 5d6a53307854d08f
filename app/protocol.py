"""What a request must look like before a route sees it: media types, size, and JSON read strictly (B1–B9).

The standard reader takes NaN, `1e400`, duplicate keys and integers no column can hold. Here each is refused, and named.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Any

from fastapi import Request

from app.errors import ApiError, NotAcceptable, RequestTimeout, TooLarge, Unprocessable, UnsupportedMedia
from app.threads import in_thread

MAX_INTEGER = 2**63 - 1
BODY_SECONDS = 60.0
"""For a whole body that is held in memory; files are streamed, and may take their time."""
_LARGE = 1 << 18  # bytes of JSON that are parsed in a thread, off the event loop
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {
    "not_finite": "is not a finite number; NaN, Infinity and numbers beyond 1.8e308 are not allowed.",
    "out_of_range": f"is out of range; integers go from {-MAX_INTEGER - 1} to {MAX_INTEGER}.",
    "duplicate_key": "is given twice in one object.",
    "invalid_character": "holds a NUL character or half a surrogate pair, which no text may hold.",
}


@dataclass(frozen=True)
class _Refused:
    """Stands in the parsed tree where a value was refused, so that its path can be told."""

    code: str
    key: str | None = None


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
    refused: list[_Refused] = []

    def refuse(code: str, key: str | None = None) -> _Refused:
        refused.append(_Refused(code, key))
        return refused[-1]

    try:
        value = json.loads(raw.decode("utf-8"), **_hooks(refuse))
    except UnicodeDecodeError:
        raise ApiError("malformed_json", "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError("malformed_json", f"The body is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise ApiError("malformed_json", "The body is nested too deeply.") from None
    # Half a surrogate pair or a NUL can only come in as an escape; raw ones are not valid UTF-8 or JSON.
    if refused or b"\\u" in raw:
        _raise_at_path(value, [])
    return value


def _hooks(refuse: Callable[..., _Refused]) -> dict[str, Any]:
    def integer(text: str) -> int | _Refused:
        value = int(text) if len(text) <= 20 else MAX_INTEGER + 1
        return value if -MAX_INTEGER - 1 <= value <= MAX_INTEGER else refuse("out_of_range")

    def number(text: str) -> float | _Refused:
        value = float(text)
        return value if abs(value) != float("inf") else refuse("not_finite")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) != len(items):
            names = [name for name, _ in items]
            twice = next(name for name in names if names.count(name) > 1)
            value[twice] = refuse("duplicate_key")
        return value

    def constant(_text: str) -> _Refused:
        return refuse("not_finite")

    return {"parse_int": integer, "parse_float": number, "parse_constant": constant, "object_pairs_hook": pairs}


def _raise_at_path(value: Any, path: list[str]) -> None:
    if isinstance(value, _Refused):
        _refuse(value.code, path)
    elif isinstance(value, str) and ("\0" in value or _SURROGATE.search(value)):
        _refuse("invalid_character", path)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _raise_at_path(key, path)
            _raise_at_path(inner, [*path, key])
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _raise_at_path(inner, [*path, str(index)])


def _refuse(code: str, path: list[str]) -> None:
    param = ".".join(path) or None
    raise Unprocessable(code, f"{f'`{param}`' if param else 'A value in the body'} {_WORDS[code]}", param)


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
