"""Pairs of residues that touch in the folded protein."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ssl_core.errors import DataError
from ssl_core.targets.base import Tally, Target, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.base import Modality

PREVIEW_PAIRS = 500
_ROWS = 256
_ALLOWED = "a list of pairs [i, j] of residues, the first residue of a chain is 0"


class Contacts(Target):
    """`contacts`: a list of pairs `[i, j]`, counted from 0; of a table of text, the list written as JSON.

    Either residue may come first; a pair that stands there twice counts once. An empty list says that the chain has no
    contacts, `null` that they are not known. What counts as a contact is the owner's: usual is a distance of the C-beta
    atoms under 8 angstrom, without pairs that are near in the chain anyway.
    """

    name: Literal["contacts"] = "contacts"
    columns: ClassVar[tuple[str, ...]] = ("contacts",)

    @classmethod
    def usual(cls, modality: type[Modality]) -> dict[str, tuple[str, ...]]:
        """Of chains of residues only."""
        return {"contacts": ("contacts",)} if modality.part == "residue" else {}

    @classmethod
    def read(cls, values: Mapping[str, Any], content: Mapping[str, bytes], modality: type[Modality]) -> Any:
        """[first, second, first, second, ...], each first before its second, in order; None where not known.

        Raises:
            DataError: `invalid_contacts`.
        """
        given = values.get("contacts")
        if given is None or given == "":
            return None
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except (ValueError, RecursionError) as error:
                raise DataError("invalid_contacts", f"the contacts are not JSON; needed: {_ALLOWED}") from error
        if not isinstance(given, list):
            raise DataError("invalid_contacts", f"the contacts are a {type(given).__name__}; needed: {_ALLOWED}")
        residues = modality.parts(content)
        pairs = {_pair(each, place, residues) for place, each in enumerate(given, 1)}
        return [residue for pair in sorted(pairs) for residue in pair]

    @classmethod
    def arrow(cls) -> Any:
        """A list of whole numbers, two for each contact."""
        import pyarrow

        return pyarrow.list_(pyarrow.int32())

    @classmethod
    def size(cls, value: Any) -> int:
        """Four bytes a residue named."""
        return 4 + 4 * len(value or ())

    @classmethod
    def tally(cls) -> Tally:
        """Counts rows and contacts."""
        return _Counts()

    @classmethod
    def preview(cls, value: Any) -> Any:
        """The first pairs."""
        if value is None:
            return None
        flat = value[: 2 * PREVIEW_PAIRS]
        return [[flat[at], flat[at + 1]] for at in range(0, len(flat), 2)]

    @classmethod
    def write(cls, dataset: Path, out: Path, modality: Modality) -> None:
        """The pairs of each chain, by tokens; whether they are known in `contacts.known.bin`."""
        from ssl_core.data import ragged, shards

        with shards.ArrayWriter(out / "contacts.known.bin", "uint8") as known:
            ragged.write(out, "contacts", "int32", _by_token(dataset, out, modality, known))
            count = known.count
        (out / "contacts.json").write_text(json.dumps({"rows": count}), encoding="utf-8")

    @classmethod
    def open(cls, prepared: Path, classes: list[str] | None = None) -> Targets:
        """`contacts` (B, P, 2) int64: pairs of tokens of the document, the first before the second, -1 behind them."""
        return _ContactShards(prepared)


def _pair(given: Any, place: int, residues: int) -> tuple[int, int]:
    whole = isinstance(given, list) and len(given) == 2
    if not whole or any(isinstance(each, bool) or not isinstance(each, int) for each in given):
        raise DataError("invalid_contacts", f"contact {place} is {str(given)[:40]}; needed: {_ALLOWED}")
    first, second = sorted(given)
    if first < 0 or second >= residues or first == second:
        message = f"contact {place} is [{given[0]}, {given[1]}]; allowed: two different ones of 0 to {residues - 1}"
        raise DataError("invalid_contacts", message)
    return first, second


def _by_token(dataset: Path, out: Path, modality: Modality, known: Any) -> Iterator[NDArray[np.int32]]:
    import numpy as np

    from ssl_core.data import rows

    (column,) = modality.columns
    for batch in rows.batches(dataset, [column, "contacts"], _ROWS):
        known.append(np.array([pairs is not None for pairs in batch["contacts"]], dtype=np.uint8))
        for pairs, at in zip(batch["contacts"], modality.first_tokens(batch[column], out), strict=True):
            yield at[np.array(pairs or [], dtype=np.int64)].astype(np.int32).reshape(-1, 2)


class _ContactShards:
    """Attributes and methods as in `ssl_core.targets.base.Targets`."""

    def __init__(self, prepared: Path) -> None:
        from ssl_core.data import ragged, shards

        count = json.loads((prepared / "contacts.json").read_text(encoding="utf-8"))["rows"]
        self.classes: list[str] = []
        self._known: NDArray[np.uint8] = shards.map_array(prepared / "contacts.known.bin", "uint8", (count,))
        self._rows = ragged.Ragged(prepared, "contacts", "int32", 2)

    def groups(self) -> NDArray[np.int64]:
        import numpy as np

        return np.where(self._known > 0, 0, -1)

    def read(self, indices: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        return {"contacts": self._rows.read(indices, -1).astype("int64")}


class _Counts:
    """Rows with contacts known, and the contacts of a row."""

    def __init__(self) -> None:
        self._rows, self._most, self._all = 0, 0, 0

    def add(self, value: Any) -> None:
        if value is None:
            return
        self._rows += 1
        self._most = max(self._most, len(value) // 2)
        self._all += len(value) // 2

    def summary(self) -> dict[str, Any]:
        if self._rows == 0:
            return {"rows": 0}
        return {"rows": self._rows, "numbers": {"max": float(self._most), "mean": self._all / self._rows}}
