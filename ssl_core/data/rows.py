"""Canonical rows of a dataset folder (docs/contracts.md §3), streamed: one record batch in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_core.errors import DataError


def profile(dataset: Path) -> dict[str, Any]:
    """What ingest measured.

    Raises:
        DataError: `invalid_dataset`, the folder was not made by ingest.
    """
    try:
        loaded: dict[str, Any] = json.loads((dataset / "profile.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("invalid_dataset", f"the dataset folder has no readable profile.json: {error}") from error
    return loaded


def batches(dataset: Path, columns: list[str], rows: int = 256) -> Iterator[dict[str, list[Any]]]:
    """At most `rows` rows at a time, as lists by column, in file order."""
    import pyarrow.parquet as parquet

    for path in sorted(dataset.glob("rows-*.parquet")):
        with parquet.ParquetFile(path, memory_map=False) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
                yield batch.to_pydict()


def labels(dataset: Path, classes: list[str]) -> Iterator[list[int]]:
    """Class index of each row, -1 where it has none."""
    index = {name: number for number, name in enumerate(classes)}
    for batch in batches(dataset, ["label"], rows=8192):
        yield [-1 if label is None else index[label] for label in batch["label"]]
