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
from ssl_core.modalities import MODALITIES


def read_row(store: Store, files: Sequence[StoredFile], modality: str, row: int, param: str) -> dict[str, Any]:
    """The content, `{"text": …}` or `{"image": base64}`, of row number `row`, from 0 over all files in order.

    Raises:
        Unprocessable: `row_not_found` at `param`.
    """
    import pyarrow.parquet as parquet

    first = 0
    for file in files:
        with parquet.ParquetFile(StoredReader(store, file["key"], file["size"]), buffer_size=1 << 16) as opened:
            rows = opened.metadata.num_rows
            if row < first + rows:
                return _content(opened, row - first, [*MODALITIES[modality].columns])
            first += rows
    words = f"`{param}` asks for row {row}; the dataset has the rows 0 to {first - 1}."
    raise Unprocessable("row_not_found", words, param)


def _content(opened: Any, row: int, columns: list[str]) -> dict[str, str]:
    """The cells of `columns` at `row` of this file, streamed batch by batch; files as base64."""
    group = 0
    while row >= opened.metadata.row_group(group).num_rows:
        row -= opened.metadata.row_group(group).num_rows
        group += 1
    for batch in opened.iter_batches(batch_size=64, row_groups=[group], columns=columns, use_threads=False):
        if row < batch.num_rows:
            cells = {name: batch.column(name)[row].as_py() for name in columns}
            return {k: v if isinstance(v, str) else base64.b64encode(v).decode() for k, v in cells.items()}
        row -= batch.num_rows
    raise EOFError("the row group is shorter than its footer says")


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
