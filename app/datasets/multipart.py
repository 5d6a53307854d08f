"""A multipart/form-data body, block by block: what came in goes out as events, and nothing is kept (B12).

The scanning is python-multipart's; what is ours are the limits and that file bytes are passed on, never collected.
"""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import ApiError, UnsupportedMedia

MAX_PARTS = 32
MAX_BOUNDARY = 70  # RFC 2046 §5.1.1


@dataclass(frozen=True)
class PartStart:
    """A part begins. `filename` is None for a plain field."""

    name: str
    filename: str | None


@dataclass(frozen=True)
class PartBytes:
    """Some of the current part's content."""

    content: bytes


@dataclass(frozen=True)
class PartEnd:
    """The current part is complete."""


Event = PartStart | PartBytes | PartEnd


class FormParser:
    """Feed it the body; it raises ApiError 400 `malformed_multipart` or `too_many_parts`."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[Event] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._parts = 0
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_bytes,
                "on_part_end": self._part_ends,
                "on_end": self._ends,
            },
        )

    def feed(self, block: bytes) -> list[Event]:
        """The events that this block completes."""
        self._events = []
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise malformed(str(error)) from None
        return self._events

    def finish(self) -> None:
        """The body is at its end: was the form, too?"""
        if not self._ended:
            raise malformed("the body ends before the closing boundary")

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ApiError("too_many_parts", f"A form may have at most {MAX_PARTS} parts.")
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise malformed('a part lacks `Content-Disposition: form-data; name="…"`')
        if self._headers.get(b"content-transfer-encoding", b"binary").strip().lower() not in (
            b"binary",
            b"8bit",
            b"7bit",
        ):
            raise malformed("parts must be sent as they are, without a Content-Transfer-Encoding")
        filename = options.get(b"filename")
        self._events.append(PartStart(_text(options[b"name"]), None if filename is None else _text(filename)))

    def _part_bytes(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartBytes(data[start:end]))

    def _part_ends(self) -> None:
        self._events.append(PartEnd())

    def _ends(self) -> None:
        self._ended = True


def boundary_of(content_type: str) -> bytes:
    """The boundary in the request's Content-Type.

    Raises:
        UnsupportedMedia: 415 `unsupported_media_type`, not a form.
        ApiError: 400 `malformed_multipart`, a form without a usable boundary.
    """
    # Headers are latin-1 on the wire; the parser's helper wants them as bytes to survive any other character.
    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    if kind != b"multipart/form-data":
        raise UnsupportedMedia("Send the file as multipart/form-data.", "Content-Type")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise malformed(f"the boundary must have 1 to {MAX_BOUNDARY} characters")
    return boundary


def malformed(what: str) -> ApiError:
    """400 with the reason."""
    return ApiError("malformed_multipart", f"The form cannot be read: {what}.")


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("names must be UTF-8") from None
    if "\0" in text:
        raise malformed("a name holds a NUL character")
    return text
