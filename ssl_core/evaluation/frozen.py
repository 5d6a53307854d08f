"""A linear probe trains on vectors computed once: the encoder does not change, so neither do they. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core.batch import Inputs
from ssl_core.encoders.base import Encoder
from ssl_core.modalities.base import Modality, Raw, Unit


class Passthrough(Encoder):
    """Stands where the frozen encoder stood: its inputs are already vectors (B, D)."""

    def __init__(self, real: Encoder) -> None:
        super().__init__()
        self.spec, self.facts, self.embed_dim = real.spec, real.facts, real.embed_dim

    def forward(self, x: Inputs) -> Tensor:
        """(B, D), as it came."""
        assert isinstance(x, Tensor)
        return x


class VectorSource:
    """Vectors and labels in memory, read like any prepared data."""

    def __init__(self, vectors: Tensor, labels: NDArray[np.int64], classes: list[str]) -> None:
        self.facts: dict[str, Any] = {}
        self.labels: NDArray[np.int32] | None = labels.astype(np.int32)
        self.classes = classes
        self._vectors = vectors.numpy()

    def count(self, unit: Unit) -> int:
        return len(self._vectors)

    def lengths(self) -> NDArray[np.int64]:
        return np.ones(len(self._vectors), dtype=np.int64)

    def read(self, unit: Unit, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None = None) -> Raw:
        return {"vectors": self._vectors[indices]}


class Vectors(Modality):
    """Their modality: one view, the vector itself."""

    name: Literal["vectors"] = "vectors"
    formats: ClassVar[tuple[str, ...]] = ()
    views: ClassVar[dict[str, Unit]] = {"plain": "document"}

    def view(self, name: str, raw: Mapping[str, Tensor], seeds: Tensor, index: int = 0) -> Tensor:
        """(B, D)."""
        return raw["vectors"].to(torch.float32)
