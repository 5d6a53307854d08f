"""Flat binary arrays on disk: appended once, memory-mapped for ever after."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

META = "meta.json"
FORMAT = 1


class ArrayWriter:
    """Appends to one flat file of one number type; memory stays that of a single append."""

    def __init__(self, path: Path, dtype: str) -> None:
        self._file = path.open("wb")
        self._dtype = dtype
        self.count = 0

    def append(self, values: NDArray[Any]) -> None:
        """Write the values in C order."""
        import numpy as np

        flat = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(flat.data)
        self.count += flat.size

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def map_array(path: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Memory-map a flat file read-only.

    Raises:
        DataError: `invalid_shards`, the file is missing or its size does not fit `shape`.
    """
    import numpy as np

    wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    found = path.stat().st_size if path.exists() else -1
    if found != wanted:
        raise DataError("invalid_shards", f"{path.name} has {found} bytes, {wanted} expected; prepare again")
    if wanted == 0:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write `meta.json`; last of all, so that a folder with it is whole."""
    text = json.dumps({"format": FORMAT, **meta}, ensure_ascii=False, sort_keys=True)
    (folder / META).write_text(text, encoding="utf-8")


def read_meta(folder: Path) -> dict[str, Any]:
    """Raises DataError `invalid_shards` where the folder was not prepared, or by another format of this program."""
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("invalid_shards", f"not a prepared folder: {error}") from error
    if meta.get("format") != FORMAT:
        raise DataError("invalid_shards", f"shards of format {meta.get('format')}, {FORMAT} expected; prepare again")
    return meta


def write_labels(folder: Path, rows: Iterable[list[int]]) -> None:
    """Class indices to `labels.bin`, int32."""
    import numpy as np

    with ArrayWriter(folder / "labels.bin", "int32") as writer:
        for part in rows:
            writer.append(np.asarray(part, dtype=np.int32))


def map_labels(folder: Path, documents: int) -> NDArray[np.int32] | None:
    """(documents,) class indices; None where no row has one."""
    labels = map_array(folder / "labels.bin", "int32", (documents,))
    return labels if bool((labels >= 0).any()) else None
