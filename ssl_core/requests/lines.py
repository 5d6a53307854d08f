"""A file of requests, line by line: `{"custom_id", "method": "POST", "url", "body"}`. Imports without torch.

What a line is, is checked for the whole file before anything is computed; its `body`, when its turn comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import Field, ValidationError

from ssl_core.errors import SpecError
from ssl_core.requests import strict_json
from ssl_core.requests.refusals import refusal
from ssl_core.values import Value

Endpoint = Literal["/v1/embeddings", "/v1/predictions"]
MAX_BYTES = 200 * 10**6
"""Of a file."""
MAX_REQUESTS = 50_000
MAX_LINE_BYTES = 4 << 20
MAX_FAULTS = 100
"""Bad lines that are told one by one; the others are counted."""
_MARK = b"\xef\xbb\xbf"


class Request(NamedTuple):
    """One line.

    Attributes:
        line: counted from 1 in the file, blank ones too.
        id: of the answer, a function of the line's bytes.
        custom_id: the caller's own name for it.
        body: as it would be posted.
        size: bytes of the line.
    """

    line: int
    id: str
    custom_id: str
    body: dict[str, Any]
    size: int = 0


class Fault(NamedTuple):
    """Why a line cannot be used; `line` is None for a fault of the whole file."""

    line: int | None
    code: str
    message: str
    param: str | None = None


class _Line(Value):
    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


def read_line(number: int, raw: bytes) -> tuple[Request, str]:
    """The request and its url.

    Raises:
        SpecError: `line_too_long`, `invalid_json_line`, or the field that is wrong.
    """
    if len(raw) > MAX_LINE_BYTES:
        raise SpecError("line_too_long", f"A line may have at most {MAX_LINE_BYTES} bytes.")
    try:
        value = strict_json.parse(raw)
    except SpecError as error:
        code = "invalid_json_line" if error.code == strict_json.MALFORMED else error.code
        raise SpecError(code, _of_line(error.message), error.param) from None
    try:
        line = _Line.model_validate(value)
    except ValidationError as error:
        told = refusal([{**each, "loc": ("body", *each["loc"])} for each in error.errors()], value)
        raise SpecError(told.code, _of_line(told.message), told.param) from None
    return Request(number, hashlib.sha256(raw).hexdigest()[:24], line.custom_id, line.body, len(raw)), line.url


def _of_line(message: str) -> str:
    """What is said of a body, said of a line."""
    return message.replace("The body", "The line").replace("at line 1, column", "at column")


def raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each line that is not blank; of one that is too long, one byte more than is allowed."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = raw
        while not rest.endswith(b"\n") and len(rest) > MAX_LINE_BYTES:
            rest = file.readline(MAX_LINE_BYTES + 1)
        line = raw.removeprefix(_MARK) if number == 1 else raw
        if line.strip():
            yield number, line if len(line) > MAX_LINE_BYTES else line.strip()


def requests(path: Path) -> Iterator[Request]:
    """The requests of a file that `faults` found nothing wrong with."""
    with path.open("rb") as file:
        for number, raw in raw_lines(file):
            yield read_line(number, raw)[0]


def model_named(head: bytes) -> str | None:
    """The model that the first request names; None where it cannot be told from the file's first bytes."""
    whole = head.removeprefix(_MARK).lstrip()
    first, end, _ = whole.partition(b"\n")
    try:
        model = read_line(1, first.strip() if end else whole.strip())[0].body.get("model")
    except SpecError:
        return None
    return model if isinstance(model, str) else None


class Checker:
    """Looks at every line of a file.

    Args:
        endpoint: that all lines must name.
        model: that all lines must name; None: the first line named none of the project's.
    """

    def __init__(self, endpoint: str, model: str | None) -> None:
        self._endpoint, self._model = endpoint, model
        self._seen: dict[str, int] = {}
        self._first: str | None = None
        self._unknown: str | None = None
        self.count = 0
        self.wrong = 0
        self.faults: list[Fault] = []

    def look(self, number: int, raw: bytes) -> None:
        """Check one line; what is wrong with it is in `faults`."""
        self.count += 1
        if self.count > MAX_REQUESTS:
            if self.count == MAX_REQUESTS + 1:
                self._note(Fault(number, "too_many_requests", f"A file may hold at most {MAX_REQUESTS} requests."))
            return
        try:
            request, url = read_line(number, raw)
        except SpecError as error:
            self._note(Fault(number, error.code, error.message, error.param))
            return
        found = self._fault(request, url)
        self._seen.setdefault(request.custom_id, number)
        if found is not None:
            self._note(found)

    def finish(self) -> None:
        """After the last line."""
        if not self.count:
            self._note(Fault(None, "empty_file", "The file holds no request."))

    def _note(self, fault: Fault) -> None:
        self.wrong += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)

    def _fault(self, request: Request, url: str) -> Fault | None:
        before, model = self._seen.get(request.custom_id), request.body.get("model")
        line = request.line
        if before is not None:
            words = f"`custom_id` {request.custom_id[:80]!r} stands in line {before} too; give each request its own."
            return Fault(line, "duplicate_custom_id", words, "custom_id")
        if url != self._endpoint:
            words = f"`url` must be {self._endpoint!r}, the batch's `endpoint`; given was {url[:80]!r}."
            return Fault(line, "invalid_value", words, "url")
        if not isinstance(model, str):
            code, words = ("missing_field", "is required") if model is None else ("type_error", "must be a string")
            return Fault(line, code, f"`body.model` {words}.", "body.model")
        return self._wrong_model(line, model)

    def _wrong_model(self, line: int, model: str) -> Fault | None:
        if self.count == 1 and self._model is None:
            self._unknown = model
        self._first = self._first or self._model or model
        if model != self._first:
            words = f"All requests of a file must name the same model, {self._first[:80]!r}; given was {model[:80]!r}."
            return Fault(line, "mismatched_model", words, "body.model")
        if model == self._unknown:
            return Fault(line, "model_not_found", f"No model with id {model[:80]!r}.", "body.model")
        return None
