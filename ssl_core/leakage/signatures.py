"""What rows are compared by, computed once for each dataset and kept in the cache beside prepared shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.context import RunContext, Stopped
from ssl_core.data import duplicates, rows
from ssl_core.data.cache import kept
from ssl_core.durable import read_manifest
from ssl_core.leakage.base import Kind
from ssl_core.leakage.pictures import Pictures
from ssl_core.leakage.sounds import Sounds
from ssl_core.leakage.texts import Chains, Texts
from ssl_core.modalities import MODALITIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS: dict[str, Kind] = {"text": Texts(), "protein": Chains(), "image": Pictures(), "audio": Sounds()}
"""Near duplicates of other modalities are not looked for; exact ones are."""
_ROWS = 256


@dataclass(frozen=True)
class Signatures:
    """Of n rows, in the dataset's order.

    Attributes:
        dataset: its folder.
        kind: how they are compared; None = only exactly.
        exact: (n,) int64, a hash of the content.
        sketches: (n, width) uint8, a memory map.
        flat: (n,) bool, rows with nothing in them.
    """

    dataset: Path
    kind: Kind | None
    exact: NDArray[np.int64]
    sketches: NDArray[np.uint8]
    flat: NDArray[np.bool_]


def digest(dataset: Path) -> str:
    """The identity of a dataset's rows."""
    return str(read_manifest(dataset)["digest"])


def signatures(dataset: Path, cache: Path, context: RunContext) -> Signatures:
    """Those of a canonical dataset folder, from the cache or made now: decoding every row once.

    Raises:
        DataError: the dataset folder is not usable.
        Stopped: asked to leave meanwhile; nothing is kept.
    """
    import numpy as np

    modality = str(rows.profile(dataset)["modality"])
    kind = KINDS.get(modality)
    version = kind.version if kind is not None else 0
    name = f"signatures-{modality}-{version}-{digest(dataset)}"
    folder = kept(cache, name, lambda out: _write(dataset, modality, out, context))
    exact, sketches, flat = (np.load(folder / f"{each}.npy", mmap_mode="r") for each in ("exact", "sketches", "flat"))
    return Signatures(dataset, kind, exact, sketches, flat)


def _write(dataset: Path, modality: str, out: Path, context: RunContext) -> None:
    """Make the files of `signatures`."""
    import numpy as np

    kind, columns = KINDS.get(modality), list(MODALITIES[modality].columns)
    total, done = int(rows.profile(dataset)["rows"]), 0
    width = kind.width if kind is not None else 0
    out.mkdir(parents=True)
    exact, flat = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.bool_)
    sketches = np.zeros((total, width), dtype=np.uint8)
    for batch in rows.batches(dataset, columns, rows=_ROWS):
        for content in _contents(batch, columns):
            exact[done] = duplicates.fingerprint(b"\0".join(_bytes(value) for value in content.values()))
            if kind is not None:
                sketches[done], flat[done] = kind.sketch(content)
            done += 1
        context.emit("progress", stage="preparing", step=done, total_steps=total)
        reason = context.should_stop()
        if reason is not None:
            raise Stopped(reason)
    for name, values in (("exact", exact), ("sketches", sketches), ("flat", flat)):
        np.save(out / f"{name}.npy", values)


def contents(dataset: Path, wanted: set[int]) -> dict[int, dict[str, Any]]:
    """Content, label and source of some rows, by their number."""
    modality = str(rows.profile(dataset)["modality"])
    columns = [*MODALITIES[modality].columns, "label", "source"]
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for batch in rows.batches(dataset, columns, rows=_ROWS) if wanted else ():
        count = len(batch["source"])
        for row in sorted(wanted & set(range(start, start + count))):
            found[row] = {name: batch[name][row - start] for name in columns}
        start += count
    return found


def _contents(batch: dict[str, list[Any]], columns: list[str]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*(batch[name] for name in columns), strict=True)]


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
