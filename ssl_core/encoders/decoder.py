"""A Transformer decoder that reads an encoder's output: the second half of sequence-to-sequence models. Needs torch.

With `norm="post"`, learned positions and `mlp="gelu"` it is BART's (Lewis et al. 2019, https://arxiv.org/abs/1910.13461).
It lives in `Nets.parts["decoder"]` and takes embeddings, so an objective can share the encoder's token table with it.
B rows, T token slots, S slots of the source, D width, H heads, E = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.dropout import Dropout
from ssl_core.encoders.transformer import Sight, sight, step_mask
from ssl_core.layers import (
    Attention,
    FeedForward,
    Past,
    attend,
    initialise,
    norm_of,
    rotary_angles,
    shrink_residuals,
)


class Decoder(nn.Module):
    """`depth` layers of causal self-attention, attention to the source, and a feed-forward.

    Args of the constructor:
        spec: the encoder's; width, heads, norms and nonlinearity are shared, whatever its `attention`.
        depth: layers; 0 = as many as the encoder has.

    Raises:
        ValueError: the spec has windows or an embedding of another width, which a decoder has not.
    """

    def __init__(self, spec: EncoderSpec, depth: int = 0) -> None:
        super().__init__()
        if spec.window or spec.embedding_width not in (0, spec.width):
            raise ValueError("a decoder has neither a window nor an embedding_width of its own")
        self.spec = spec
        self.position = nn.Embedding(spec.max_positions, spec.width) if spec.positions == "learned" else None
        self.embedding_norm = norm_of(spec) if spec.embedding_norm else nn.Identity()
        self.dropout = Dropout(spec.dropout)
        self.layers = nn.ModuleList(DecoderLayer(spec, first=at == 0) for at in range(depth or spec.depth))
        self.final_norm = norm_of(spec) if spec.norm == "pre" else nn.Identity()
        self.apply(initialise)
        if spec.norm == "pre":
            shrink_residuals(self.layers)

    def forward(self, embedded: Tensor, tokens: Tokens, states: Tensor, source: Tokens) -> Tensor:
        """(B, T, D): at each token what comes after it. What stands at padding means nothing.

        Args:
            embedded: (B, T, D) token embeddings, already moved one to the right.
            tokens: whose they are; a document reads the source's document of the same number.
            states: (B, S, D) the encoder's output.
            source: what the encoder read.
        """
        own = sight(tokens.segments, tokens.positions, causal=True, window=0, in_order=True)
        reading = _Reading(self._read(states), _source_mask(tokens, source))
        return self._through(embedded, tokens.positions, own, reading, None)

    def start(self, states: Tensor, source: Tokens) -> Generation:
        """What `step` goes on from: the source read once by every layer. One document a row.

        Args:
            states: (B, S, D) the encoder's output.
            source: what the encoder read.
        """
        real = source.segments >= 0
        return Generation(_Reading(self._read(states), real[:, None, None]), [Past() for _ in self.layers])

    def step(self, embedded: Tensor, generation: Generation) -> Tensor:
        """(B, T, D) of the next T tokens, given the embeddings (B, T, D) of the ones before them."""
        length = embedded.shape[1]
        positions = torch.arange(generation.length, generation.length + length, device=embedded.device)
        own = step_mask(length, generation.length, embedded.device), generation.length == 0
        positions = positions.expand(embedded.shape[0], length)
        return self._through(embedded, positions, own, generation.reading, generation.pasts)

    def _read(self, states: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [layer.crossing.read(states) for layer in self.layers if isinstance(layer, DecoderLayer)]

    def _through(
        self, hidden: Tensor, positions: Tensor, own: Sight, reading: _Reading, pasts: list[Past] | None
    ) -> Tensor:
        spec = self.spec
        if self.position is not None:
            hidden = hidden + self.position(positions)
        hidden = self.dropout(self.embedding_norm(hidden))
        rotary = None
        if spec.positions == "rotary":
            rotary = rotary_angles(positions, spec.width // spec.heads, spec.rotary_base, hidden.dtype)
        mask, causal = own
        for at, layer in enumerate(self.layers):
            past = None if pasts is None else pasts[at]
            hidden = layer(hidden, (mask, rotary, causal, past), reading.states[at], reading.mask)
        last: Tensor = self.final_norm(hidden)
        return last


@dataclass
class _Reading:
    """The source as the layers see it: keys and values (B, G, S, E) of each, and a bool mask (B, 1, T or 1, S)."""

    states: list[tuple[Tensor, Tensor]]
    mask: Tensor | None


@dataclass
class Generation:
    """Where a decoder stands in writing B rows.

    Attributes:
        reading: the source.
        pasts: of each layer, what has been written.
    """

    reading: _Reading
    pasts: list[Past]

    @property
    def length(self) -> int:
        """Tokens written so far."""
        keys = self.pasts[0].keys
        return 0 if keys is None else keys.shape[2]

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what was row `rows[i]`, (B',) int64: a beam search keeps its best."""
        for past in self.pasts:
            past.reorder(rows)
        self.reading.states = [(keys[rows], values[rows]) for keys, values in self.reading.states]
        self.reading.mask = None if self.reading.mask is None else self.reading.mask[rows]


class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another (Vaswani et al. 2017, arXiv 1706.03762)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.heads, self.shared, self.dropout = spec.heads, spec.key_value_heads or spec.heads, spec.dropout
        self.head_dim = spec.width // spec.heads
        biased = spec.bias if spec.qkv_bias == "same" else spec.qkv_bias == "yes"
        self.query = nn.Linear(spec.width, spec.width, bias=biased)
        self.key_value = nn.Linear(spec.width, 2 * self.shared * self.head_dim, bias=biased)
        self.out = nn.Linear(spec.width, spec.width, bias=spec.bias)

    def read(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, S, E) of (B, S, D)."""
        both = self.key_value(states).view(*states.shape[:2], 2, self.shared, self.head_dim)
        keys, values = both.permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(self, x: Tensor, states: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """(B, T, D) from (B, T, D), looking at what `read` gave where `mask` (B, 1, T or 1, S) is True."""
        batch, length, width = x.shape
        query = self.query(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        seen = attend(query, *states, mask, False, self.dropout if self.training else 0.0)
        mixed: Tensor = self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return mixed


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each added to what came in, with norms before or after."""

    def __init__(self, spec: EncoderSpec, first: bool) -> None:
        super().__init__()
        self.pre = spec.norm == "pre"
        bare = self.pre and first and spec.embedding_norm and not spec.first_norm
        self.attention_norm = nn.Identity() if bare else norm_of(spec)
        self.attention = Attention(spec)
        self.crossing_norm = norm_of(spec)
        self.crossing = CrossAttention(spec)
        self.feed_forward_norm = norm_of(spec)
        self.feed_forward = FeedForward(spec)
        self.dropout = Dropout(spec.dropout)

    def forward(self, x: Tensor, own: Own, states: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """(B, T, D) from (B, T, D).

        Args:
            x: the tokens.
            own: the further arguments of `Attention.forward`.
            states: keys and values of the source, see `CrossAttention.read`.
            mask: (B, 1, T or 1, S) bool, True where a token may look at the source.
        """
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), *own))
            x = x + self.dropout(self.crossing(self.crossing_norm(x), states, mask))
            raised: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
            return raised
        x = self.attention_norm(x + self.dropout(self.attention(x, *own)))
        x = self.crossing_norm(x + self.dropout(self.crossing(x, states, mask)))
        normed: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return normed


def start_as(decoder: Decoder, encoder: nn.Module) -> None:
    """Begin with the encoder's self-attention, feed-forward and norms, layer by layer; attention to the source stays
    fresh (Rothe et al. 2020, Leveraging Pre-trained Checkpoints, https://arxiv.org/abs/1907.12461).

    Args:
        decoder: built from the encoder's spec; layers that the encoder has not stay fresh.
        encoder: a Transformer.
    """
    theirs = encoder.state_dict()
    mine = {
        name: theirs[name]
        for name, value in decoder.state_dict().items()
        if name in theirs and theirs[name].shape == value.shape
    }
    decoder.load_state_dict(mine, strict=False)


Own: TypeAlias = tuple[Tensor | None, tuple[Tensor, Tensor] | None, bool, Past | None]
"""Mask, rotary angles, whether causal, and past of a layer's self-attention."""


def _source_mask(tokens: Tokens, source: Tokens) -> Tensor:
    """(B, 1, T, S): a document sees its own source. Padding sees everything, as no query may be left without a key."""
    same = tokens.segments[:, :, None] == source.segments[:, None, :]
    return (same | (tokens.segments < 0)[:, :, None])[:, None]
