"""One lean Transformer trunk. Needs torch.

With `norm="post"`, learned positions and `mlp="gelu"` it is BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805);
with `norm="pre"`, rotary positions, `mlp="geglu"` and no biases it is ModernBERT with global attention in every layer
(Warner et al. 2024, https://arxiv.org/abs/2412.13663). Tests hold it to both, output and gradient.

A row may hold several documents (packing); they never see each other. B rows, T token slots, D width, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Inputs, Tokens
from ssl_core.encoders.base import Encoder
from ssl_core.errors import SpecError
from ssl_core.layers import Attention, FeedForward, masked_mean, rotary_angles

_INITIAL_STD = 0.02  # BERT's


class Transformer(Encoder):
    """Token embeddings, `depth` layers, and a last norm where the layers have theirs in front.

    Attributes:
        token: (vocabulary, D) embedding; an objective may tie its output to it.
    """

    def __init__(self, spec: EncoderSpec, facts: dict[str, Any]) -> None:
        super().__init__()
        if spec.positions == "learned" and facts["max_length"] > spec.max_positions:
            text = f"rows of {facts['max_length']} tokens do not fit {spec.max_positions} learned positions"
            raise SpecError("encoder_does_not_fit", text, "modality.max_length")
        self.spec, self.facts, self.embed_dim = spec, facts, spec.width
        self.token = nn.Embedding(facts["vocab_size"], spec.width)
        self.position = nn.Embedding(spec.max_positions, spec.width) if spec.positions == "learned" else None
        self.embedding_norm = _norm(spec)
        self.dropout = nn.Dropout(spec.dropout)
        # The embedding is normalised already, so a pre-norm trunk has no norm before its first attention.
        self.layers = nn.ModuleList(Layer(spec, first=at == 0) for at in range(spec.depth))
        self.final_norm = _norm(spec) if spec.norm == "pre" else nn.Identity()
        self.apply(_initialise)
        if spec.norm == "pre":
            self._shrink_residuals()

    def patches(self, x: Inputs) -> Tensor:
        """(B, T, D) token embeddings, before positions, norm and layers."""
        embedded: Tensor = self.token(_tokens(x).ids)
        return embedded

    def encode(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """(B, N, D), N = T or K; see `Encoder.encode`. What stands at padding means nothing."""
        tokens = _tokens(x)
        hidden = self.patches(tokens) if fill is None else fill
        positions, segments = tokens.positions, tokens.segments
        if keep is not None:
            hidden = hidden.gather(1, keep[:, :, None].expand(-1, -1, hidden.shape[2]))
            positions, segments = positions.gather(1, keep), segments.gather(1, keep)
        if self.position is not None:
            hidden = hidden + self.position(positions)
        hidden = self.dropout(self.embedding_norm(hidden))
        mask = attention_mask(segments)
        rotary = None
        if self.spec.positions == "rotary":
            rotary = rotary_angles(positions, self.spec.width // self.spec.heads, self.spec.rotary_base, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, mask, rotary)
        last: Tensor = self.final_norm(hidden)
        return last

    def forward(self, x: Inputs) -> Tensor:
        """(B, D): the mean over a row's real tokens."""
        return masked_mean(self.encode(x), _tokens(x).segments >= 0)

    def _shrink_residuals(self) -> None:
        """GPT-2's rule: each layer writes to the stream twice, so its outputs start 1 / sqrt(2 depth) as large."""
        with torch.no_grad():
            for name, weight in self.layers.named_parameters():
                if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                    weight.mul_((2 * self.spec.depth) ** -0.5)


class Layer(nn.Module):
    """Attention, then a feed-forward, each added to what came in; the norm stands before (`pre`) or after (`post`)."""

    def __init__(self, spec: EncoderSpec, first: bool) -> None:
        super().__init__()
        self.pre = spec.norm == "pre"
        self.attention_norm = nn.Identity() if self.pre and first else _norm(spec)
        self.attention = Attention(spec.width, spec.heads, spec.bias, spec.dropout)
        self.feed_forward_norm = _norm(spec)
        self.feed_forward = FeedForward(spec.width, round(spec.mlp_ratio * spec.width), spec.mlp, spec.bias)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """(B, T, D) from (B, T, D)."""
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask, rotary))
            raised: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
            return raised
        x = self.attention_norm(x + self.dropout(self.attention(x, mask, rotary)))
        normed: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return normed


def attention_mask(segments: Tensor) -> Tensor | None:
    """Which token may look at which: (B, 1, T, T) or (B, 1, 1, T) bool, or None where every row is one whole document.

    Asking needs the values, which on a GPU would wait for the device; there the full mask is always built.

    Args:
        segments: (B, T) as in `Tokens`.
    """
    if segments.device.type == "cpu":
        if not bool(segments.any()):
            return None
        if int(segments.max()) <= 0:
            # One document a row: padding looks at it too, which nobody reads, and no row is left without a key.
            keys: Tensor = (segments == 0) | (segments < 0).all(1, keepdim=True)
            return keys[:, None, None, :]
    same: Tensor = segments[:, :, None] == segments[:, None, :]
    return same[:, None]


def _tokens(x: Inputs) -> Tokens:
    if not isinstance(x, Tokens):
        raise TypeError("the transformer reads Tokens, not pictures")
    return x


def _norm(spec: EncoderSpec) -> nn.LayerNorm:
    return nn.LayerNorm(spec.width, eps=spec.norm_epsilon, bias=spec.bias)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=_INITIAL_STD, a=-3 * _INITIAL_STD, b=3 * _INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
