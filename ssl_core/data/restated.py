"""A dataset read with another one's constants: a model must see every picture normalised as in its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssl_core.modalities.base import Raw, Source, Unit
from ssl_core.targets.base import TARGET

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.targets.base import Targets

_CONSTANTS = ("mean", "std")


class Restated:
    """`source` with the `mean` and `std` of `facts` where those have any, and labels counted in `classes`.

    Args:
        source: prepared data.
        facts: of the model that will read it.
        classes: the model's classes; a label that is not among them becomes -1.
        targets: what a document is labelled with instead of a class, and read with it.
    """

    def __init__(
        self, source: Source, facts: dict[str, Any], classes: list[str], targets: Targets | None = None
    ) -> None:
        import numpy as np

        self._source = source
        self.facts = _restated(source.facts, facts)
        self.classes = classes
        self.labels: NDArray[np.int32] | None = None
        self._targets = targets
        if source.labels is not None and targets is None:
            table = [classes.index(name) if name in classes else -1 for name in source.classes]
            self.labels = np.asarray([*table, -1], dtype=np.int32)[np.asarray(source.labels)]

    def groups(self) -> NDArray[np.int64]:
        """(documents,) the class of each, or the stratum that its target says; -1 = nothing to learn from it."""
        import numpy as np

        if self._targets is not None:
            return self._targets.groups()
        if self.labels is None:
            return np.full(self._source.count("document"), -1)
        return np.asarray(self.labels, dtype=np.int64)

    def truth(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """What those documents are labelled with: the target's arrays, or `label` (B,) int64."""
        if self._targets is not None:
            return dict(self._targets.read(indices))
        return {"label": self.groups()[indices]}

    def count(self, unit: Unit) -> int:
        return self._source.count(unit)

    def lengths(self) -> NDArray[np.int64]:
        return self._source.lengths()

    def read(self, unit: Unit, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None = None) -> Raw:
        import numpy as np

        raw = dict(self._source.read(unit, indices, seeds))
        if self._targets is not None and unit == "document":
            raw |= {TARGET + name: values for name, values in self._targets.read(indices).items()}
        for name, values in raw.items():
            side, _, constant = name.rpartition(".")
            if constant in _CONSTANTS:
                row = np.asarray((self.facts[side] if side else self.facts)[constant], dtype=values.dtype)
                raw[name] = np.broadcast_to(row, values.shape).copy()
        return raw


def _restated(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """`mine` with their constants, on each side where the facts are of several."""
    constants = {name: theirs[name] for name in _CONSTANTS if name in theirs}
    sides = {
        name: _restated(value, theirs[name])
        for name, value in mine.items()
        if isinstance(value, dict) and name in theirs
    }
    return {**mine, **constants, **sides}
