"""A row as the vectors of its places side by side, instead of their mean. Needs torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Inputs, Tokens
from ssl_core.encoders.base import Encoder


def vectors_by_place(encoder: Encoder, view: Inputs, places: int) -> Tensor:
    """(B, places x embed_dim) outputs of the first so many tokens, zeros where a row has ended; 0 places: (B,
    embed_dim), the encoder's own vector.

    Raises:
        TypeError: places of what is no row of tokens.
    """
    if not places:
        return encoder(view)  # type: ignore[no-any-return]
    if not isinstance(view, Tokens):
        raise TypeError("places are of tokens")
    hidden = encoder.encode(view).masked_fill(view.segments[:, :, None] < 0, 0.0)[:, :places]
    return F.pad(hidden, (0, 0, 0, places - hidden.shape[1])).flatten(1)
