"""What every reader of uploads shares: the canonical row, the report of bad ones, and the limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ssl_core.errors import DataError

ModalityName = Literal["text", "image"]
MAX_TEXT_BYTES = 4 * 2**20
"""Longest document, and longest line of a file, in UTF-8 bytes."""
MAX_LABEL_CHARACTERS = 200
KEPT_ERRORS = 1000
TEXT_COLUMNS = ("text", "content", "document", "sentence", "body")
LABEL_COLUMNS = ("label", "class", "category")
IMAGE_COLUMNS = ("image", "picture", "img")


@dataclass(frozen=True)
class Row:
    """One good row on its way to the canonical dataset.

    Attributes:
        content: UTF-8 of a text, or the bytes of a picture file.
        label: its class, or None.
        source: `file:row`, where it came from.
    """

    content: bytes
    label: str | None
    source: str


@dataclass
class BadRows:
    """Rows that were refused: all counted, the first 1,000 kept as `{"file", "row", "code", "message"}`."""

    count: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: str, row: int, error: DataError) -> None:
        """Report row number `row` (from 1) of `file`."""
        self.count += 1
        if len(self.kept) < KEPT_ERRORS:
            self.kept.append({"file": file[:400], "row": row, "code": error.code, "message": error.message[:1000]})


@dataclass(frozen=True)
class Upload:
    """An uploaded file and what its owner said of it.

    Attributes:
        path: where it lies.
        name: what it was called.
        columns: our column name to theirs: `text`, `label`, `image`.
        modality: `text` or `image`; None = told from the bytes.
        bad: where refused rows go.
    """

    path: Path
    name: str
    columns: dict[str, str]
    modality: ModalityName | None
    bad: BadRows


@dataclass
class Reading:
    """Rows of an upload as they are read.

    Attributes:
        modality: what they are.
        rows: the good ones, in the order of the file.
        total: units of work in the whole upload (bytes or files).
        done: units so far.
    """

    modality: ModalityName
    rows: Iterator[Row]
    total: int
    done: int = 0


def clean_text(value: Any) -> bytes:
    """UTF-8 of a document.

    Raises:
        DataError: `wrong_type`, `empty_text`, `encoding_error` (not Unicode, or a NUL), `line_too_long`.
    """
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


def clean_label(value: Any) -> str | None:
    """A label as a string; None for nothing. Whole numbers and booleans are written out.

    Raises:
        DataError: `invalid_label`.
    """
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float):
        raise DataError("invalid_label", f"a label is a string or a number, not a {type(value).__name__}")
    label = str(value)
    if len(label) > MAX_LABEL_CHARACTERS or "\x00" in label:
        raise DataError("invalid_label", f"a label has at most {MAX_LABEL_CHARACTERS} characters and no NUL")
    try:
        label.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError("encoding_error", "the label is not valid UTF-8") from error
    return label


def choose_column(ours: str, found: list[str], mapping: dict[str, str], usual: tuple[str, ...]) -> str | None:
    """Which of the columns `found` is `ours`: the mapped one, else the first usual name, whatever its case.

    Raises:
        DataError: `missing_column`, the mapping names a column that is not there.
    """
    if ours in mapping:
        if mapping[ours] not in found:
            listed = ", ".join(found[:20])
            raise DataError("missing_column", f"no column {mapping[ours]!r}; found: {listed}", f"columns.{ours}")
        return mapping[ours]
    lowered = {name.lower(): name for name in reversed(found)}
    return next((lowered[name] for name in usual if name in lowered), None)


def text_column(found: list[str], mapping: dict[str, str]) -> str:
    """The column of the texts; the only one where there is only one.

    Raises:
        DataError: `missing_column`.
    """
    chosen = choose_column("text", found, mapping, TEXT_COLUMNS)
    if chosen is None and len(found) == 1:
        return found[0]
    if chosen is None:
        listed = ", ".join(found[:20]) or "none"
        message = f'which column is the text? Say it with columns={{"text": "..."}}; found: {listed}'
        raise DataError("missing_column", message, "columns.text")
    return chosen
