"""How near 8-bit weights stay to float32 on real rows, for a model's card. Needs torch; tells nothing without onnx."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_core.batch import Tokens
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.errors import SpecError
from ssl_core.evaluation.features import plain_batches
from ssl_core.int8 import TRIED_ROWS, Fidelity, Int8Trunk
from ssl_core.modalities.base import Modality, Source
from ssl_core.packing import hidden_of, pack, pooled


@torch.no_grad()
def int8_told(
    encoder: Encoder, source: Source, modality: Modality, indices: NDArray[np.int64]
) -> dict[str, Any] | None:
    """`cosine`, the least of up to 64 rows between a vector in 8 bits and in float32, and `rows`; instead `why` 8 bits
    cannot be had. None for a model of anything but tokens.

    `indices` are documents of `source`, of which evenly spaced ones are taken.
    """
    if not isinstance(encoder, Transformer) or not len(indices):
        return None
    trunk = encoder if _on_cpu(encoder) else deepcopy(encoder).cpu()
    training = trunk.training
    trunk.eval()
    try:
        places = np.linspace(0, len(indices) - 1, min(TRIED_ROWS, len(indices))).astype(np.int64)
        return _told(trunk, source, modality, np.sort(indices[places]))
    finally:
        trunk.train(training)


def _on_cpu(encoder: Encoder) -> bool:
    return next(encoder.parameters()).device.type == "cpu"


def _told(trunk: Transformer, source: Source, modality: Modality, indices: NDArray[np.int64]) -> dict[str, Any] | None:
    coarse, near = None, Fidelity()
    for _, batch in plain_batches(source, modality, indices, torch.device("cpu"), 16):
        rows = batch.views[0]
        if not isinstance(rows, Tokens):
            return None
        try:
            coarse = coarse or Int8Trunk(trunk)
        except SpecError as error:
            return {"why": error.message}
        packed = pack(rows)
        exact, found = (
            pooled(hidden, packed.lengths, trunk.spec.pooling)
            for hidden in (hidden_of(trunk, packed), coarse.hidden_of(packed))
        )
        near = coarse.tried("mean", exact, found)
    return None if coarse is None else {"cosine": round(near.cosine, 5), "rows": near.rows}
