"""A text model's layers with 8-bit weights in onnxruntime, held against float32 on the rows that are asked for.

Weights have a scale for each output channel; activations one for each product, found as it is computed, so a vector
depends a little (its cosine in the fourth digit) on what shares its batch. Needs onnx and onnxruntime (extra `int8`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.encoders.transformer import Transformer
from ssl_core.errors import SpecError
from ssl_core.packing import Packed, angles, embedded, sight_of

LEAST_COSINE = 0.99
"""Of a row's vector in 8 bits to that in float32, for every row that is tried."""
TRIED_ROWS = 64
_LARGEST_BYTES = 1_900_000_000
"""One protocol buffer holds 2 GB."""
_HIDDEN = -1e9
"""Added to the score of a key that may not be seen; finite, so that a query without keys is no NaN."""


@dataclass(frozen=True)
class Fidelity:
    """How near 8 bits are to float32.

    Attributes:
        cosine: the least of all rows tried; 1 before the first.
        rows: how many were tried.
    """

    cosine: float = 1.0
    rows: int = 0

    def tried(self, exact: Tensor, coarse: Tensor) -> Fidelity:
        """After more rows, (S, D) each."""
        found = float(F.cosine_similarity(exact.double(), coarse.double(), dim=1).min())
        if not math.isfinite(found):  # NaN compares with nothing, and must not pass for a cosine of 1
            found = -1.0
        return Fidelity(min(self.cosine, found), self.rows + len(exact))

    def check(self) -> None:
        """Raises SpecError `precision_lost` below `LEAST_COSINE`."""
        if self.cosine < LEAST_COSINE:
            words = f"with 8-bit weights a vector's cosine to float32 was {self.cosine:.4f}, below {LEAST_COSINE}"
            raise SpecError("precision_lost", f"{words}; ask for fp32", "precision")


class Int8Trunk:
    """The layers of a trunk in a session of their own. One thread at a time.

    Attributes:
        fidelity: of all rows tried so far, by pooling: vectors are compared, not what they are made of.
        size_bytes: of the 8-bit weights.
    """

    def __init__(self, trunk: Transformer, int8: bool = True) -> None:
        """Quantise; `int8` False leaves the weights as they are.

        Raises:
            SpecError: `precision_unavailable`, onnx or onnxruntime is not installed; `precision_unsupported`, the model
                is too large or has layers of another kind.
        """
        try:
            import onnx as _  # noqa: F401
            import onnxruntime
        except ImportError as error:
            text = "this server has no onnxruntime (extra `int8`), which 8-bit weights need"
            raise SpecError("precision_unavailable", text, "precision") from error
        from ssl_core.packed_graph import graph_of

        weights = sum(weight.numel() for weight in trunk.layers.parameters())
        if weights * (1 if int8 else 4) > _LARGEST_BYTES:
            text = f"the model has {weights} weights in its layers, more than 8 bits are offered for"
            raise SpecError("precision_unsupported", text, "precision")
        try:
            graph = graph_of(trunk, int8).SerializeToString()
        except TypeError as error:
            raise SpecError("precision_unsupported", f"8 bits are not offered here: {error}", "precision") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_mem_pattern = False  # every batch has another shape
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._trunk = trunk
        self.size_bytes = len(graph)
        self.fidelity: dict[str, Fidelity] = {}

    def near(self, pooling: str) -> Fidelity:
        """How near this pooling's vectors are, as far as is known."""
        return self.fidelity.get(pooling, Fidelity())

    def tried(self, pooling: str, exact: Tensor, coarse: Tensor) -> Fidelity:
        """The same after more rows, (S, D) each."""
        self.fidelity[pooling] = found = self.near(pooling).tried(exact, coarse)
        return found

    def hidden_of(self, packed: Packed) -> Tensor:
        """(N, D), as `ssl_core.packing.hidden_of`."""
        trunk = self._trunk
        hidden = embedded(trunk, packed)
        fed = {"hidden": hidden, "slots": packed.slots, "places": packed.places}
        for window in set(trunk.windows):
            fed[f"bias{window}"] = _bias(trunk, packed, window)
            turned = angles(trunk, packed, window, hidden.dtype)
            if turned is not None:
                fed[f"cosine{window}"], fed[f"sine{window}"] = turned
        (out,) = self._session.run(None, {name: value.contiguous().numpy() for name, value in fed.items()})
        last: Tensor = trunk.final_norm(torch.from_numpy(out))
        return last


def _bias(trunk: Transformer, packed: Packed, window: int) -> Tensor:
    """(S or 1, 1, L or 1, L): 0 where a token may look, a large negative number elsewhere."""
    mask, causal = sight_of(trunk, packed, window)
    length = packed.slots.shape[1]
    if mask is None:
        mask = torch.ones(1, 1, length if causal else 1, length, dtype=torch.bool).tril() if causal else None
    if mask is None:
        return torch.zeros(1, 1, 1, length)
    return torch.zeros(mask.shape).masked_fill_(~mask, _HIDDEN)
