"""Rows of different length in one flat file, with the offsets where each begins; the targets of a dataset lie so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import shards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def write(folder: Path, name: str, dtype: str, rows: Iterable[NDArray[Any]]) -> None:
    """Write `<name>.bin` and `<name>.offsets.bin`.

    Args:
        folder: exists.
        name: of the files.
        dtype: of the values.
        rows: (entries,) or (entries, width) of each row, in the dataset's order; every row has the same width.
    """
    import numpy as np

    with (
        shards.ArrayWriter(folder / f"{name}.bin", dtype) as values,
        shards.ArrayWriter(folder / f"{name}.offsets.bin", "int64") as offsets,
    ):
        offsets.append(np.zeros(1, dtype=np.int64))
        done = 0
        for row in rows:
            values.append(row)
            done += len(row)
            offsets.append(np.array([done]))


class Ragged:
    """What `write` wrote, opened.

    Args:
        folder: of the files.
        name: of the files.
        dtype: of the values.
        width: numbers in an entry; 0 = an entry is one number.
    """

    def __init__(self, folder: Path, name: str, dtype: str, width: int = 0) -> None:
        path = folder / f"{name}.offsets.bin"
        count = path.stat().st_size // 8 if path.exists() else 0
        self._offsets: NDArray[np.int64] = shards.map_array(path, "int64", (count,))
        entries = int(self._offsets[-1]) if count else 0
        self._values = shards.map_array(folder / f"{name}.bin", dtype, (entries, width) if width else (entries,))

    def lengths(self) -> NDArray[np.int64]:
        """(rows,) entries of each."""
        import numpy as np

        return np.diff(self._offsets)

    def read(self, indices: NDArray[np.int64], fill: float) -> NDArray[Any]:
        """(B, L) or (B, L, width), L the longest of these rows, `fill` behind the shorter ones."""
        import numpy as np

        begin, end = self._offsets[indices], self._offsets[indices + 1]
        longest = int((end - begin).max(initial=0))
        out = np.full((len(indices), longest, *self._values.shape[1:]), fill, dtype=self._values.dtype)
        for row, (first, last) in enumerate(zip(begin, end, strict=True)):
            out[row, : last - first] = self._values[first:last]
        return out
