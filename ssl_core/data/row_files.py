"""Writing canonical rows: Parquet files of about 128 MB, a few megabytes in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ssl_core.targets import TARGETS

if TYPE_CHECKING:
    from ssl_core.modalities.base import Modality

FILE_BYTES = 128 * 2**20
GROUP_BYTES = 8 * 2**20
GROUP_ROWS = 8192


class RowWriter:
    """Appends rows to `rows-00000.parquet`, `rows-00001.parquet`, ... in a folder; `targets`: which they have."""

    def __init__(self, folder: Path, modality: type[Modality], targets: Iterable[str] = ()) -> None:
        self._folder = folder
        self._modality = modality
        self._targets = {name: TARGETS[name] for name in targets}
        self._rows: list[dict[str, Any]] = []
        self._held = 0
        self._written = 0
        self._files = 0
        self._writer: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Take one row with its canonical columns."""
        self._rows.append(row)
        self._held += sum(len(row[name]) for name in self._modality.columns)
        self._held += sum(kind.size(row[name]) for name, kind in self._targets.items())
        if self._held >= GROUP_BYTES or len(self._rows) >= GROUP_ROWS:
            self._flush()

    def _schema(self) -> Any:
        import pyarrow as arrow

        content = self._modality.columns.items()
        return arrow.schema([
            *((name, arrow.binary() if column.media else arrow.string()) for name, column in content),
            *((name, arrow.int32()) for name in self._modality.measures),
            ("label", arrow.string()), ("source", arrow.string()),
            *((name, kind.arrow()) for name, kind in self._targets.items()),
        ])  # fmt: skip

    def _flush(self) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        if not self._rows:
            return
        schema = self._schema()
        if self._writer is None:
            path = self._folder / f"rows-{self._files:05d}.parquet"
            # Files such as pictures are packed already; dictionaries of texts only cost memory.
            packing = "none" if any(column.media for column in self._modality.columns.values()) else "zstd"
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
