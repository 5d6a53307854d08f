"""Do pictures find their texts, and texts their pictures? Needs torch. N pairs, D width of the shared space."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Batch, one_pair
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.dual import towers

DEPTHS = (1, 5, 10)
_ROWS = 1024
"""Of the table of cosines that are alive at once."""


@torch.no_grad()
def pair_vectors(encoder: Encoder, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """(N, D) of pictures and of texts of all batches, on the CPU."""
    found = [towers(encoder, *one_pair(batch.views)) for batch in batches]
    images, texts = (torch.cat([pair[side] for pair in found]).float().cpu() for side in (0, 1))
    return images, texts


def ranks(asking: Tensor, asked: Tensor) -> Tensor:
    """(N,) int64: how many of (N, D) `asked` are as near by cosine to row i of `asking` as its own row i, or nearer.

    0 = found at once. A rival that is just as near counts as nearer, so that vectors which are all the same find
    nothing.
    """
    queries, keys = F.normalize(asking.double(), dim=1), F.normalize(asked.double(), dim=1)
    parts = []
    for start in range(0, len(queries), _ROWS):
        cosines = queries[start : start + _ROWS] @ keys.T
        own = cosines.gather(1, torch.arange(start, start + len(cosines))[:, None])
        parts.append((cosines >= own).sum(1) - 1)
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def recalls(image_ranks: Tensor, text_ranks: Tensor) -> dict[str, float]:
    """`image_to_text_r_at_1` and so on: the share of rows whose partner is among the 1, 5 and 10 nearest."""
    sides = {"image_to_text": image_ranks, "text_to_image": text_ranks}
    return {
        f"{name}_r_at_{depth}": float((found < depth).double().mean())
        for name, found in sides.items()
        for depth in DEPTHS
    }
