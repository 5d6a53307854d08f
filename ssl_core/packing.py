"""Texts of any lengths through a Transformer without a slot of padding, for serving. Needs torch.

The tokens of all documents stand behind each other, so every matrix product and norm works on real tokens alone; only
attention, a few hundredths of the work of short texts, takes rows as long as the longest one.

S documents, N tokens of all of them, L tokens of the longest, D width, H heads of queries, G of keys, E channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.encoders.transformer import Sight, Transformer, sight
from ssl_core.layers import Attention, Layer, attend, rotary_angles, rotate

Mix = Callable[[Attention, Tensor], Tensor]
Angles = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Packed:
    """Documents behind each other.

    Attributes:
        tokens: one row of all documents, (1, N); `segments` numbers them.
        rows: the same documents as rows of their own, (S, L), padding behind them.
        slots: (S, L) int64, which token stands in a slot of `rows`; padding points at token 0, which nobody reads.
        places: (N,) int64, in which slot of `rows`, counted through, a token stands.
        lengths: (S,) int64, at least 1.
    """

    tokens: Tokens
    rows: Tokens
    slots: Tensor
    places: Tensor
    lengths: Tensor


def pack(rows: Tokens) -> Packed:
    """From rows of one document each, the padding behind it.

    Raises:
        ValueError: a row holds no document, several, or padding in front of a token.
    """
    real = rows.segments == 0
    lengths = real.sum(1)
    behind = torch.arange(rows.ids.shape[1], device=real.device) >= lengths[:, None]
    if bool((real == behind).any()) or not bool(lengths.min() > 0) or int(rows.segments.max()) > 0:
        raise ValueError("rows of one document each, with padding behind it, can be packed")
    places = real.flatten().nonzero().squeeze(1)
    slots = torch.zeros(real.numel(), dtype=torch.int64, device=real.device)
    slots[places] = torch.arange(len(places), device=real.device)
    documents = torch.repeat_interleave(torch.arange(len(lengths), device=real.device), lengths)
    flat = Tokens(rows.ids[real][None], documents.int()[None], rows.positions[real][None])
    return Packed(flat, rows, slots.view(real.shape), places, lengths)


def hidden_of(trunk: Transformer, packed: Packed) -> Tensor:
    """(N, D): what `trunk.encode` gives for the real tokens."""
    hidden = embedded(trunk, packed)
    mixes = {}
    for window in set(trunk.windows):
        mixes[window] = _mixing(packed, sight_of(trunk, packed, window), angles(trunk, packed, window, hidden.dtype))
    for layer, window in zip(trunk.layers, trunk.windows, strict=True):
        assert isinstance(layer, Layer)
        hidden = _through(layer, hidden, mixes[window])
    last: Tensor = trunk.final_norm(hidden)
    return last


def embedded(trunk: Transformer, packed: Packed) -> Tensor:
    """(N, D): what goes into the first layer."""
    hidden = trunk.patches(packed.tokens)[0]
    if trunk.position is not None:
        hidden = hidden + trunk.position(packed.tokens.positions[0])
    made: Tensor = trunk.project(trunk.embedding_norm(hidden))
    return made


def sight_of(trunk: Transformer, packed: Packed, window: int) -> Sight:
    """Who looks at whom in `packed.rows`, in layers of that window."""
    causal = trunk.spec.attention == "causal"
    return sight(packed.rows.segments, packed.rows.positions, causal, window, in_order=True)


def angles(trunk: Transformer, packed: Packed, window: int, dtype: torch.dtype) -> Angles | None:
    """Cosine and sine (N, 1, E / 2) of rotary positions in layers of that window; None where positions are others."""
    spec = trunk.spec
    if spec.positions != "rotary":
        return None
    base = spec.local_rotary_base if window and spec.local_rotary_base else spec.rotary_base
    cosine, sine = rotary_angles(packed.tokens.positions, spec.width // spec.heads, base, dtype)
    return cosine[0, 0, :, None], sine[0, 0, :, None]


def pooled(hidden: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """(S, D) float32 of (N, D): the `mean`, the `max`, the first (`cls`) or the `last` token of each document."""
    ends = lengths.cumsum(0)
    if pooling == "cls":
        return hidden[ends - lengths].float()
    if pooling == "last":
        return hidden[ends - 1].float()
    return torch.segment_reduce(hidden.float(), "mean" if pooling == "mean" else "max", lengths=lengths)


def _mixing(packed: Packed, seen: Sight, rotary: Angles | None) -> Mix:
    """Attention of (N, D) within the documents."""
    mask, causal = seen

    def mixed(attention: Attention, x: Tensor) -> Tensor:
        heads, shared, channels = attention.heads, attention.shared, attention.head_dim
        qkv = attention.qkv(x)
        if rotary is not None:
            qk, values = qkv.view(len(x), heads + 2 * shared, channels).split((heads + shared, shared), 1)
            qkv = torch.cat([rotate(qk, *rotary), values], 1).flatten(1)
        rows = F.embedding(packed.slots, qkv).view(*packed.slots.shape, heads + 2 * shared, channels)
        q, k, v = (part.transpose(1, 2) for part in torch.split(rows, [heads, shared, shared], 2))
        flat = attend(q, k, v, mask, causal, 0.0).transpose(1, 2).reshape(-1, heads * channels)
        out: Tensor = attention.out(flat.index_select(0, packed.places))
        return out

    return mixed


def _through(layer: Layer, x: Tensor, mix: Mix) -> Tensor:
    """(N, D), as `Layer.forward` without dropout."""
    if layer.pre:
        x = x + layer.attention_scale(mix(layer.attention, layer.attention_norm(x)))
        raised: Tensor = x + layer.feed_forward_scale(layer.feed_forward(layer.feed_forward_norm(x)))
        return raised
    x = layer.attention_norm(x + layer.attention_scale(mix(layer.attention, x)))
    normed: Tensor = layer.feed_forward_norm(x + layer.feed_forward_scale(layer.feed_forward(x)))
    return normed
