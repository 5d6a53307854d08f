"""Documents on their way into a dataset: checked, measured, sketched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssl_core.data import duplicates, sniff
from ssl_core.data.intake import MAX_TEXT_BYTES
from ssl_core.errors import DataError
from ssl_core.modalities.base import Examined

if TYPE_CHECKING:
    from ssl_core.data.archives import Member

PREVIEW_CHARACTERS = 1000
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def clean(value: Any) -> bytes:
    """UTF-8 of a document; a list of words is one with spaces between them.

    Raises:
        DataError: `wrong_type`, `empty_text`, `encoding_error` (not Unicode, or a NUL), `line_too_long`.
    """
    if isinstance(value, list):
        value = _joined(value)
    if not isinstance(value, str):
        raise DataError("wrong_type", f"the text is a {type(value).__name__}, a string is needed")
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("encoding_error", f"not valid UTF-8 at character {error.start}") from error
    if b"\x00" in data:
        raise DataError("encoding_error", "holds a NUL byte; the file must be UTF-8 text")
    if len(data) > MAX_TEXT_BYTES:
        raise DataError("line_too_long", f"a document has at most {MAX_TEXT_BYTES:,} bytes, this has {len(data):,}")
    if not data.strip():
        raise DataError("empty_text", "the text is empty")
    return data


def _joined(words: list[Any]) -> str:
    for place, word in enumerate(words, 1):
        if not isinstance(word, str):
            raise DataError("wrong_type", f"word {place} is a {type(word).__name__}, a string is needed")
        if len(word.split()) != 1:
            message = f"word {place} is {word[:40]!r}; a word is not empty and holds no white space"
            raise DataError("wrong_type", message)
    return " ".join(words)


def from_member(member: Member) -> bytes:
    """A text file of an archive.

    Raises:
        DataError: as `clean`, or `unsupported_type` for a table or something other than text.
    """
    if member.size > MAX_TEXT_BYTES:
        raise DataError("line_too_long", f"a document has at most {MAX_TEXT_BYTES:,} bytes, this has {member.size:,}")
    if member.name.lower().endswith(_TABLES):
        raise DataError("unsupported_type", "a table inside an archive; upload it by itself")
    data = member.read()
    what = sniff.foreign(data[: sniff.HEAD])
    if what is not None:
        raise DataError("unsupported_type", f"the file is {what}; text is expected in this archive")
    try:
        return clean(data.decode("utf-8-sig").strip())
    except UnicodeDecodeError as error:
        raise DataError("encoding_error", f"not valid UTF-8 at byte {error.start}") from error


def examine(content: bytes) -> Examined:
    """Of UTF-8; its length is in characters."""
    text = content.decode("utf-8")
    return Examined(
        columns={"text": text},
        length=len(text),
        sketch=lambda: duplicates.text_sketch(content),
        preview=lambda: {"text": text[:PREVIEW_CHARACTERS]},
    )
