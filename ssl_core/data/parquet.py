"""Rows of Parquet files: a column of texts, or of picture files (binary, or a struct with `bytes` as on the Hub)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ssl_core.data import pictures
from ssl_core.data.intake import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    ModalityName,
    Reading,
    Row,
    Upload,
    choose_column,
    clean_label,
    clean_text,
    text_column,
)
from ssl_core.errors import DataError

MAX_ROWS = 100_000_000
MAX_COLUMNS = 10_000
MAX_CHUNK_BYTES = 2**31
"""One column of one row group, unpacked; writers make some hundred megabytes."""
MAX_RATIO = 1000
"""Dictionaries pack honest tables well; a file that unpacks to more than this is made to."""
SMALL = 2**28
_BATCH_ROWS = 64


def read(upload: Upload) -> Reading:
    """Rows of a Parquet file.

    Raises:
        DataError: `parquet_error`, `missing_column`, also while its rows are read.
    """
    file = _guarded(upload, lambda: _open(upload))
    names = list(file.schema_arrow.names)
    image = choose_column("image", names, upload.columns, IMAGE_COLUMNS)
    modality: ModalityName = upload.modality or ("image" if image is not None else "text")
    if modality == "image" and image is None:
        message = 'which column holds the pictures? Say it with columns={"image": "..."}'
        raise DataError("missing_column", f"{message}; found: {', '.join(names[:20])}", "columns.image")
    content = image if modality == "image" and image is not None else text_column(names, upload.columns)
    label = choose_column("label", names, upload.columns, LABEL_COLUMNS)
    reading = Reading(modality, iter(()), total=file.metadata.num_rows)
    reading.rows = _rows(upload, reading, file, (content, label))
    return reading


def _guarded(upload: Upload, call: Callable[[], Any]) -> Any:
    """The library's errors, whatever their class, in our words."""
    import pyarrow

    try:
        return call()
    except (pyarrow.ArrowException, OSError, MemoryError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError("parquet_error", f"the Parquet file is broken: {reason}", upload.name) from error


def _open(upload: Upload) -> Any:
    import pyarrow.parquet as parquet

    limit = 64 * 2**20  # bytes of one string, entries of one list, in the footer
    file = parquet.ParquetFile(
        upload.path, memory_map=False, buffer_size=2**20, pre_buffer=False,
        thrift_string_size_limit=limit, thrift_container_size_limit=2**20,
    )  # fmt: skip
    meta, size = file.metadata, upload.path.stat().st_size
    if meta.num_rows > MAX_ROWS or meta.num_columns > MAX_COLUMNS:
        message = f"at most {MAX_ROWS:,} rows and {MAX_COLUMNS:,} columns are allowed"
        raise DataError("parquet_error", message, upload.name)
    for group in range(meta.num_row_groups):
        for column in range(meta.num_columns):
            chunk = meta.row_group(group).column(column)
            if not 0 <= chunk.total_uncompressed_size <= MAX_CHUNK_BYTES or chunk.total_compressed_size > size:
                message = f"column {chunk.path_in_schema[:100]!r} declares {chunk.total_uncompressed_size:,} bytes"
                raise DataError("parquet_error", message, upload.name)
    return file


def _rows(upload: Upload, reading: Reading, file: Any, names: tuple[str, str | None]) -> Iterator[Row]:
    content, label = names
    columns = [content] if label is None else [content, label]
    batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False)
    most = max(SMALL, MAX_RATIO * upload.path.stat().st_size)
    unpacked = 0
    while (batch := _guarded(upload, lambda: next(batches, None))) is not None:
        values = _guarded(upload, partial(_python, batch))
        labels = values[label] if label is not None else [None] * len(batch)
        for value, name in zip(values[content], labels, strict=True):
            reading.done += 1
            row = _row(upload, reading, value, name)
            if row is not None:
                unpacked += len(row.content)
                yield row
        if unpacked > most:
            raise DataError("parquet_error", f"unpacks to more than {MAX_RATIO} times its size", upload.name)


def _python(batch: Any) -> dict[str, list[Any]]:
    # Offsets that point outside their buffer are found here, before anything follows them.
    batch.validate(full=True)
    values: dict[str, list[Any]] = batch.to_pydict()
    return values


def _row(upload: Upload, reading: Reading, value: Any, label: Any) -> Row | None:
    try:
        content = clean_text(value) if reading.modality == "text" else _picture_bytes(value)
        return Row(content, clean_label(label), f"{upload.name}:{reading.done}")
    except DataError as error:
        upload.bad.add(upload.name, reading.done, error)
        return None


def _picture_bytes(value: Any) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DataError("wrong_type", f"a picture is the bytes of its file, not a {type(data).__name__}")
    if pictures.kind_of(data) is None:
        raise DataError("unsupported_type", "not a picture of an allowed format, told by its first bytes")
    return data
