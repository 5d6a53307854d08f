"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ssl_core.data.intake import (
    Reading,
    Row,
    TargetColumns,
    Upload,
    claimed,
    clean_label,
    content_columns,
    label_column,
    left_over,
)
from ssl_core.errors import DataError
from ssl_core.modalities.base import Modality

MAX_ROWS = 100_000_000
MAX_COLUMNS = 10_000
MAX_CHUNK_BYTES = 2**31
"""One column of one row group, unpacked; writers make some hundred megabytes."""
MAX_RATIO = 1000
"""Dictionaries pack honest tables well; a file that unpacks to more than this is made to."""
SMALL = 2**28
_BATCH_ROWS = 64


def read(upload: Upload, candidates: list[type[Modality]]) -> Reading:
    """Rows of a Parquet file that is of one of those modalities.

    Raises:
        DataError: `parquet_error`, `missing_column`, also while its rows are read.
    """
    file = _guarded(upload, lambda: _open(upload))
    names = list(file.schema_arrow.names)
    modality = claimed(candidates, names, upload.columns)
    content = content_columns(modality, names, upload.columns)
    label = label_column(names, upload.columns)
    reading = Reading(modality, iter(()), total=file.metadata.num_rows)
    reading.targets = TargetColumns.found(modality, names, upload.columns)
    reading.ignored = left_over(modality, names, upload.columns, reading.targets)
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


def _rows(
    upload: Upload, reading: Reading, file: Any, names: tuple[dict[str, str], str | None]
) -> Iterator[Row]:
    content, label = names
    columns = [*content.values(), *([] if label is None else [label]), *reading.targets.theirs()]
    batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False)
    most = max(SMALL, MAX_RATIO * upload.path.stat().st_size)
    unpacked = 0
    while (batch := _guarded(upload, lambda: next(batches, None))) is not None:
        values = _guarded(upload, partial(_python, batch))
        labels = values[label] if label is not None else [None] * len(batch)
        for at, name in enumerate(labels):
            reading.done += 1
            cells = {column: values[column][at] for column in columns}
            row = _row(upload, reading, ({ours: cells[theirs] for ours, theirs in content.items()}, cells), name)
            if row is not None:
                unpacked += sum(map(len, row.content.values()))
                yield row
        if unpacked > most:
            raise DataError("parquet_error", f"unpacks to more than {MAX_RATIO} times its size", upload.name)


def _python(batch: Any) -> dict[str, list[Any]]:
    # Offsets that point outside their buffer are found here, before anything follows them.
    batch.validate(full=True)
    values: dict[str, list[Any]] = batch.to_pydict()
    return values


def _row(
    upload: Upload, reading: Reading, values: tuple[dict[str, Any], dict[str, Any]], label: Any
) -> Row | None:
    """`values`: the content by our columns, and everything by theirs."""
    try:
        content = reading.modality.from_row(values[0])
        targets = reading.targets.read(values[1], content, reading.modality)
        return Row(content, clean_label(label), f"{upload.name}:{reading.done}", targets)
    except DataError as error:
        upload.bad.add(upload.name, reading.done, error)
        return None
