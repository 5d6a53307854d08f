"""One lean Transformer trunk. Needs torch.

One set of layers; the spec makes it BERT, RoBERTa or ELECTRA (`norm="post"`, learned positions), ModernBERT (`geglu`,
local layers with global ones between), GPT-2 (causal, no norm behind the embedding), Llama (causal, RMS norms, grouped
queries, `swiglu`), ESM-2 or CLIP's text tower. Tests hold it to each of them, output and gradient.

A row may hold several documents (packing); they never see each other. B rows, T token slots, D width, H heads.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Inputs, Tokens
from ssl_core.dropout import Dropout
from ssl_core.encoders.base import Encoder
from ssl_core.errors import SpecError
from ssl_core.layers import Layer, Past, initialise, masked_mean, norm_of, rotary_angles, shrink_residuals


class Transformer(Encoder):
    """Token embeddings, `depth` layers, and a last norm where the layers have theirs in front.

    Attributes:
        token: (vocabulary, D) embedding, or of `embedding_width` channels; an objective may tie its output to it.
    """

    def __init__(self, spec: EncoderSpec, facts: dict[str, Any]) -> None:
        super().__init__()
        if spec.positions == "learned" and facts["max_length"] > spec.max_positions:
            text = f"rows of {facts['max_length']} tokens do not fit {spec.max_positions} learned positions"
            raise SpecError("encoder_does_not_fit", text, "modality.max_length")
        self.spec, self.facts, self.embed_dim = spec, facts, spec.width
        self.windows = [0 if _sees_all(spec, at) else spec.window for at in range(spec.depth)]
        narrow = spec.embedding_width or spec.width
        self.token = nn.Embedding(facts["vocab_size"], narrow)
        self.position = nn.Embedding(spec.max_positions, narrow) if spec.positions == "learned" else None
        self.embedding_norm = norm_of(spec, narrow) if spec.embedding_norm else nn.Identity()
        self.project = nn.Linear(narrow, spec.width) if narrow != spec.width else nn.Identity()
        self.dropout = Dropout(spec.dropout)
        self.layers = nn.ModuleList(Layer(spec, first=at == 0) for at in range(spec.depth))
        self.final_norm = norm_of(spec) if spec.norm == "pre" else nn.Identity()
        self.apply(initialise)
        if spec.norm == "pre":
            shrink_residuals(self.layers)

    def patches(self, x: Inputs) -> Tensor:
        """(B, T, D) token embeddings (`embedding_width` channels where that is set), before positions and norm."""
        tokens = _tokens(x)
        embedded: Tensor = self.token(tokens.ids)
        if self.spec.token_dropout > 0:
            return _without_masks(embedded, tokens, self.facts["mask_id"], self.spec.token_dropout)
        return embedded

    def encode(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """(B, N, D), N = T or K; see `Encoder.encode`. What stands at padding means nothing."""
        tokens = _tokens(x)
        hidden = self.patches(tokens) if fill is None else fill
        positions, segments = tokens.positions, tokens.segments
        if keep is not None:
            hidden = hidden.gather(1, keep[:, :, None].expand(-1, -1, hidden.shape[2]))
            positions, segments = positions.gather(1, keep), segments.gather(1, keep)
        causal, in_order = self.spec.attention == "causal", keep is None
        sights = {window: sight(segments, positions, causal, window, in_order) for window in set(self.windows)}
        return self._through(hidden, positions, sights)

    def pasts(self) -> list[Past]:
        """What `step` starts from: an empty past of every layer."""
        return [Past() for _ in self.layers]

    def step(self, ids: Tensor, pasts: list[Past]) -> Tensor:
        """(B, T, D) of the next tokens of causal rows, each one document; `pasts` grows by them.

        Args:
            ids: (B, T) int64: all of a prompt at first, then a token or more at a time.
            pasts: of every layer, `pasts()` at first; `Past.reorder` exchanges rows.

        Raises:
            ValueError: the encoder sees what comes after, or in windows.
        """
        if self.spec.attention != "causal" or self.spec.window or self.spec.token_dropout:
            raise ValueError("only a causal trunk without windows can go a token at a time")
        before = 0 if pasts[0].keys is None else pasts[0].keys.shape[2]
        positions = torch.arange(before, before + ids.shape[1], device=ids.device).expand_as(ids)
        own = step_mask(ids.shape[1], before, ids.device), before == 0
        return self._through(self.token(ids), positions, {0: own}, pasts)

    def forward(self, x: Inputs) -> Tensor:
        """(B, D): the mean over a row's real tokens, or its first or last one, as the spec's `pooling` says."""
        hidden, real = self.encode(x), _tokens(x).segments >= 0
        if self.spec.pooling == "cls":
            return hidden[:, 0]
        if self.spec.pooling == "last":
            last = (torch.arange(real.shape[1], device=real.device) * real).argmax(1)
            return hidden.gather(1, last[:, None, None].expand(-1, -1, hidden.shape[2])).squeeze(1)
        return masked_mean(hidden, real)

    def _through(
        self, hidden: Tensor, positions: Tensor, sights: dict[int, Sight], pasts: list[Past] | None = None
    ) -> Tensor:
        """(B, T, D) of token embeddings; `sights` by window, 0 for the layers that see all."""
        spec = self.spec
        if self.position is not None:
            hidden = hidden + self.position(positions)
        hidden = self.dropout(self.project(self.embedding_norm(hidden)))
        turns: dict[int, tuple[Tensor, Tensor] | None] = dict.fromkeys(sights)
        for window in sights if spec.positions == "rotary" else ():
            base = spec.local_rotary_base if window and spec.local_rotary_base else spec.rotary_base
            turns[window] = rotary_angles(positions, spec.width // spec.heads, base, hidden.dtype)
        for at, (layer, window) in enumerate(zip(self.layers, self.windows, strict=True)):
            mask, causal = sights[window]
            hidden = layer(hidden, mask, turns[window], causal, None if pasts is None else pasts[at])
        last: Tensor = self.final_norm(hidden)
        return last


def _sees_all(spec: EncoderSpec, layer: int) -> bool:
    """ModernBERT's order: the first layer and every `global_every`-th after it are global."""
    return spec.global_every > 0 and layer % spec.global_every == 0


Sight: TypeAlias = tuple[Tensor | None, bool]
"""A mask as `Attention.forward` takes it, and whether without one nobody sees what comes after."""


def sight(segments: Tensor, positions: Tensor, causal: bool, window: int, in_order: bool) -> Sight:
    """Which token may look at which.

    Args:
        segments, positions: (B, T) as in `Tokens`.
        causal: none sees what comes after it in its document.
        window: none sees farther than half of it, or causal not the last `window`; 0 = no such bound.
        in_order: slots stand as in the row, none left out.
    """
    reach = window - 1 if causal else window // 2
    if segments.shape[1] - 1 <= reach:
        window = 0
    if not causal and not window:
        return attention_mask(segments), False
    if causal and not window and in_order and _one_document_each(segments):
        return None, True
    seen = segments[:, :, None] == segments[:, None, :]
    behind = positions[:, :, None] - positions[:, None, :]
    if causal:
        seen = seen & (behind >= 0)
    if window:
        seen = seen & (behind.abs() <= reach)
    return seen[:, None], False


def _may_ask(segments: Tensor) -> bool:
    return segments.device.type == "cpu" and not torch.compiler.is_compiling()


def _one_document_each(segments: Tensor) -> bool:
    """Whether padding stands behind one document a row, so that whoever looks back never meets it; False where asking
    costs more, see `attention_mask`."""
    if not _may_ask(segments):
        return False
    return int(segments.max()) <= 0 and not bool((segments[:, 1:] > segments[:, :-1]).any())


def step_mask(length: int, before: int, device: torch.device) -> Tensor | None:
    """(T, S + T) bool of T tokens behind S others, True where one may look; None for the first ones or a lone one."""
    if before == 0 or length == 1:
        return None
    return torch.ones(length, before + length, dtype=torch.bool, device=device).tril(before)


def attention_mask(segments: Tensor) -> Tensor | None:
    """Which token may look at which: (B, 1, T, T) or (B, 1, 1, T) bool, or None where every row is one whole document.

    Asking needs the values, which on a GPU would wait for the device and which a compiled or exported graph does not
    have; there the full mask is always built.

    Args:
        segments: (B, T) as in `Tokens`.
    """
    if _may_ask(segments):
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


def _without_masks(embedded: Tensor, tokens: Tokens, mask_id: int, trained: float) -> Tensor:
    """ESM-2's token dropout: mask tokens enter as zero, and the others grow so that a document's sum stays what it was
    at the share `trained` of mask tokens (Lin et al. 2022, https://doi.org/10.1126/science.ade2574, the authors' code).
    """
    hidden = tokens.ids == mask_id
    document = tokens.segments.long() + 1
    count = embedded.new_zeros(document.shape[0], document.shape[1] + 1)
    length = count.scatter_add(1, document, torch.ones_like(document, dtype=count.dtype)).gather(1, document)
    masks = count.scatter_add(1, document, hidden.to(count.dtype)).gather(1, document)
    # A document of mask tokens alone is all zero whatever the factor; the bound keeps it finite.
    factor = (1 - trained) / (1 - masks / length).clamp(min=1 / (2 * document.shape[1]))
    return embedded.masked_fill(hidden[:, :, None], 0.0) * factor[:, :, None]
