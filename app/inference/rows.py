"""One row of a dataset as an inference item: only the pages of its row group that hold it are read.

Canonical row files lie in the store (docs/contracts.md §3); the API reads their Parquet pages, never a picture in them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from app.datasets.service import StoredFile
from app.errors import Unprocessable
from app.storage import Store


def read_row(store: Store, files: Sequence[StoredFile], modality: str, row: int, param: str) -> dict[str, Any]:
    """`{"text": …}` or `{"image": base64}` of row number `row`, counted from 0 over all files in order.

    Raises:
        Unprocessable: `row_not_found` at `param`.
    """
    import pyarrow.parquet as parquet

    first = 0
    for file in files:
        with parquet.ParquetFile(StoredReader(store, file["key"], file["size"]), buffer_size=1 << 16) as opened:
            rows = opened.metadata.num_rows
            if row < first + rows:
                return _as_item(_value(opened, row - first, modality))
            first += rows
    words = f"`{param}` asks for row {row}; the dataset has the rows 0 to {first - 1}."
    raise Unprocessable("row_not_found", words, param)


def _value(opened: Any, row: int, column: str) -> Any:
    """The cell of `column` at `row` of this file, streamed batch by batch."""
    group = 0
    while row >= opened.metadata.row_group(group).num_rows:
        row -= opened.metadata.row_group(group).num_rows
        group += 1
    for batch in opened.iter_batches(batch_size=64, row_groups=[group], columns=[column], use_threads=False):
        if row < batch.num_rows:
            return batch.column(0)[row].as_py()
        row -= batch.num_rows
    raise EOFError("the row group is shorter than its footer says")


def _as_item(value: Any) -> dict[str, Any]:
    return {"text": value} if isinstance(value, str) else {"image": base64.b64encode(value).decode()}


class StoredReader(io.RawIOBase):
    """An object of the store as a seekable file: each read is one range request."""

    def __init__(self, store: Store, key: str, size: int) -> None:
        self._store = store
        self._key = key
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        if self._at >= end:
            return b""
        content = self._store.get_range(self._key, self._at, end)
        self._at += len(content)
        return content
