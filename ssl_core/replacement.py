"""The parts of replaced-token detection: Clark et al. 2020, https://arxiv.org/abs/2003.10555. Needs torch.

B rows, T token slots, K hidden places a row, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.distributed import mean
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.heads import VocabularyHead
from ssl_core.masks import MaskedTokens
from ssl_core.nets import Nets
from ssl_core.rng import uniform

_GUESS = 204  # number of the random stream
_CHUNK_VALUES = 2**24  # probabilities alive at once: 64 MB
_LEAST_WIDTH = 16


def generator_of(encoder: Encoder, size: float) -> Transformer:
    """A narrower trunk without token embeddings, which takes the encoder's as `fill`.

    Heads keep their width, and their number is `size` of the encoder's. Places are learned anew where they are learned.
    """
    spec = encoder.spec
    head_width = spec.width // spec.heads
    heads = max(1, round(size * spec.heads), -(-_LEAST_WIDTH // head_width))
    fields = {
        "name": "custom", "width": heads * head_width, "heads": heads, "key_value_heads": 0, "token_dropout": 0.0,
        "embedding_width": spec.embedding_width or spec.width,
    }  # fmt: skip
    generator = Transformer(EncoderSpec.model_validate({**spec.model_dump(), **fields}), encoder.facts)
    del generator.token
    return generator


class DetectionHead(nn.Module):
    """ELECTRA's: a hidden layer of the same width, and one logit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        for layer in (self.dense, self.out):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.06, b=0.06)
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T) logits, above zero for "replaced", of (B, T, D)."""
        logits: Tensor = self.out(F.gelu(self.dense(hidden)))
        return logits.squeeze(-1)


def generate_from(nets: Nets, tokens: Tokens) -> Tensor:
    """(B, T, D) the generator's output on corrupted tokens."""
    generator = nets.parts["generator"]
    if not isinstance(generator, Transformer):
        raise TypeError("replaced-token detection needs a generator")
    return generator.encode(tokens, fill=nets.encoder.patches(tokens))


@torch.no_grad()
def replaced(nets: Nets, hidden: Tensor, masked: MaskedTokens, seeds: Tensor) -> Tokens:
    """The rows with a draw from the generator's distribution at each hidden place.

    One uniform number a place, by inversion: as exact as Gumbel noise to 2^-24, without a number for each entry.

    Args:
        nets: with a Transformer, and a `VocabularyHead` under `vocabulary`.
        hidden: (B, T, D) the generator's output.
        masked: what was hidden.
        seeds: (B,) int64.
    """
    head, encoder = nets.parts["vocabulary"], nets.encoder
    if not isinstance(head, VocabularyHead) or not isinstance(encoder, Transformer):
        raise TypeError("replaced-token detection needs a Transformer and a VocabularyHead")
    rows = torch.arange(len(hidden), device=hidden.device)[:, None]
    at_places = head(hidden[rows, masked.places].flatten(0, 1))
    draws = uniform(seeds, masked.places.shape[1], _GUESS).flatten()[:, None]
    weight, size = encoder.token.weight, max(1, _CHUNK_VALUES // len(encoder.token.weight))
    parts = [
        _drawn(F.linear(some, weight, head.bias), draw)
        for some, draw in zip(torch.split(at_places, size), torch.split(draws, size), strict=True)
    ]
    guesses = torch.cat(parts).view_as(masked.places)
    told = torch.where(masked.weights > 0, guesses, masked.targets)
    return replace(masked.tokens, ids=masked.tokens.ids.scatter(1, masked.places, told))


def _drawn(logits: Tensor, draws: Tensor) -> Tensor:
    """(M,) entries, from (M, V) logits and (M, 1) numbers in [0, 1)."""
    reached = logits.float().softmax(1).cumsum(1)
    # Rounding may leave the whole below or above 1.
    return torch.searchsorted(reached, draws * reached[:, -1:], right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


@dataclass(frozen=True)
class Detection:
    """What the encoder told: the mean loss over real tokens, and two shares of rightly told ones, detached."""

    loss: Tensor
    replaced_found: Tensor
    real_kept: Tensor


def detection_loss(nets: Nets, hidden: Tensor, changed: Tensor, real: Tensor) -> Detection:
    """Binary cross-entropy over all real tokens; `nets` holds a `DetectionHead` under `detection`.

    Args:
        nets: see above.
        hidden: (B, T, D) the encoder's output on the corrupted rows.
        changed: (B, T) bool, which tokens are not the true ones.
        real: (B, T) bool, which are no padding.
    """
    logits = nets.parts["detection"](hidden).float()
    losses = F.binary_cross_entropy_with_logits(logits, changed.float(), reduction="none")
    # Processes have different numbers of tokens: each divides by the mean number, so that their mean is that of all.
    loss = (losses * real).sum() / mean(real.sum().float()).clamp(min=1)
    found, told = logits.detach() > 0, changed & real
    kept = ~changed & real
    return Detection(
        loss, (found & told).sum() / told.sum().clamp(min=1), (~found & kept).sum() / kept.sum().clamp(min=1)
    )
