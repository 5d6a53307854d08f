"""Writing canonical rows: Parquet files of about 128 MB, a few megabytes in memory at a time."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_core.data.intake import ModalityName

FILE_BYTES = 128 * 2**20
GROUP_BYTES = 8 * 2**20
GROUP_ROWS = 8192


class RowWriter:
    """Appends rows to `rows-00000.parquet`, `rows-00001.parquet`, ... in a folder."""

    def __init__(self, folder: Path, modality: ModalityName) -> None:
        self._folder = folder
        self._content = modality
        self._rows: list[dict[str, Any]] = []
        self._held = 0
        self._written = 0
        self._files = 0
        self._writer: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Take one row with its canonical columns."""
        self._rows.append(row)
        self._held += len(row[self._content])
        if self._held >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _schema(self) -> Any:
        import pyarrow as arrow

        shared = [("label", arrow.string()), ("source", arrow.string())]
        if self._content == "text":
            return arrow.schema([("text", arrow.string()), *shared])
        sizes = [(name, arrow.int32()) for name in ("width", "height", "channels")]
        return arrow.schema([("image", arrow.binary()), *sizes, *shared])

    def _flush(self) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        if not self._rows:
            return
        schema = self._schema()
        if self._writer is None:
            path = self._folder / f"rows-{self._files:05d}.parquet"
            # Picture files are packed already; dictionaries of texts only cost memory.
            packing = "zstd" if self._content == "text" else "none"
            self._writer = parquet.ParquetWriter(path, schema, compression=packing, use_dictionary=["label"])
            self._files += 1
        self._writer.write_table(arrow.Table.from_pylist(self._rows, schema=schema))
        self._written += self._held
        self._rows, self._held = [], 0
        if self._written >= FILE_BYTES:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._written = None, 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._flush()
        self._close()
