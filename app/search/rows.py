"""Some rows of a dataset, wherever they lie in its files: only row groups that hold one of them are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.datasets.service import StoredFile
from app.inference.rows import StoredReader
from app.storage import Store

PREVIEW_CHARACTERS = 500
_TOLD = ("source", "label")


def read_rows(
    store: Store, files: Sequence[StoredFile], columns: Sequence[str], wanted: Sequence[int], room: int
) -> dict[int, dict[str, Any]]:
    """`columns`, `source` and `label` of the rows with these numbers, from 0 over all files in order.

    Pictures and sounds that would come to more than `room` bytes together are left out of their rows, and texts are cut
    to `PREVIEW_CHARACTERS`: whatever the rows hold, an answer takes no more memory than that.
    """
    import pyarrow.parquet as parquet

    found: dict[int, dict[str, Any]] = {}
    first = 0
    for file in files:
        if len(found) == len(set(wanted)):
            break
        with parquet.ParquetFile(StoredReader(store, file["key"], file["size"]), buffer_size=1 << 16) as opened:
            end = first + opened.metadata.num_rows
            here = sorted({row - first for row in wanted if first <= row < end})
            for at, row in _of_file(opened, here, [*columns, *_TOLD]):
                size = sum(len(cell) for cell in row.values() if isinstance(cell, bytes))
                fits = size <= room
                room -= size if fits else 0
                found[first + at] = {name: cell for name, cell in row.items() if fits or not isinstance(cell, bytes)}
            first = end
    return found


def _of_file(opened: Any, wanted: list[int], columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    first = 0
    for group in range(opened.metadata.num_row_groups):
        end = first + opened.metadata.row_group(group).num_rows
        here = [row for row in wanted if first <= row < end]
        if here:
            yield from _of_group(opened, group, first, here, columns)
        first = end


def _of_group(
    opened: Any, group: int, first: int, wanted: list[int], columns: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Streamed, so that a group of pictures is never held whole."""
    for batch in opened.iter_batches(batch_size=64, row_groups=[group], columns=columns, use_threads=False):
        for row in wanted:
            if first <= row < first + batch.num_rows:
                yield row, {name: _cut(batch.column(name)[row - first].as_py()) for name in columns}
        first += batch.num_rows
        if first > wanted[-1]:
            return


def _cut(cell: Any) -> Any:
    return cell[:PREVIEW_CHARACTERS] if isinstance(cell, str) else cell
