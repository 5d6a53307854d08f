"""Vectors of a split by the plain view, in batches that keep little padding. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.data.loader import make_batch, read_slice
from ssl_core.encoders.base import Encoder
from ssl_core.modalities.base import Modality, Source


def plain_batches(
    source: Source, modality: Modality, indices: NDArray[np.int64], device: torch.device, batch_size: int = 128
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """(positions in `indices`, batch of plain views), shortest documents first."""
    order = np.argsort(source.lengths()[indices], kind="stable")
    for start in range(0, len(order), batch_size):
        positions = order[start : start + batch_size]
        part = read_slice(source, "document", indices[positions], None)
        yield positions, make_batch(modality, ("plain",), part, device)


@torch.no_grad()
def features(
    encoder: Encoder, source: Source, modality: Modality, indices: NDArray[np.int64], device: torch.device
) -> Tensor:
    """(len(indices), D) float32 on the CPU, in the order of `indices`, by the encoder in evaluation mode."""
    training = encoder.training
    encoder.eval()
    out = torch.empty(len(indices), encoder.embed_dim)
    for positions, batch in plain_batches(source, modality, indices, device):
        out[torch.from_numpy(positions)] = encoder(batch.views[0]).float().cpu()
    encoder.train(training)
    return out
