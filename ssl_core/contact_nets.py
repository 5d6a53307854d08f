"""From what an encoder knows of residues to what it says of pairs of them. Needs torch.

L residues of one chain, D width, M = layers x heads attention maps, C channels of a pair. Chains go through one by one:
a map of pairs grows with the square of the length, and padding with it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.batch import Tokens
from ssl_core.encoders.transformer import Transformer
from ssl_core.evaluation.attention import weights
from ssl_core.heads import Classifier

_BINS = (6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)
"""Where a further class of separations begins."""


def looked(encoder: Transformer, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The encoder's output (B, T, D), and the attention maps (B, M, T, T) of all its layers.

    The layers keep no maps (they use a fused kernel): each is computed again from what its layer read.
    """
    maps: list[Tensor] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        maps.append(weights(module, *args, **kwargs))

    hooks = [layer.attention.register_forward_pre_hook(look, with_kwargs=True) for layer in encoder.layers]  # type: ignore[union-attr]
    try:
        hidden = encoder.encode(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return hidden, torch.cat(maps, 1)


def symmetric(maps: Tensor) -> Tensor:
    """(M, L, L) maps with their transposes added, less what their rows and columns explain: the average product
    correction of Dunn et al. 2008, https://doi.org/10.1093/bioinformatics/btm604, as Rao et al. 2020 (bioRxiv
    2020.12.15.422761) put it to attention maps."""
    both = maps + maps.transpose(1, 2)
    rows, columns = both.sum(1, keepdim=True), both.sum(2, keepdim=True)
    return both - rows * columns / both.sum((1, 2), keepdim=True).clamp(min=1e-12)


def separations(length: int, device: torch.device) -> Tensor:
    """(L, L) int64: the class of each pair's separation, of `len(_BINS) + 1`."""
    at = torch.arange(length, device=device)
    return torch.bucketize((at[:, None] - at[None]).abs(), torch.tensor(_BINS, device=device), right=True)


class MapHead(Classifier):
    """Logistic regression on the attention maps and the separation of a pair."""

    def __init__(self, encoder: Transformer) -> None:
        super().__init__(encoder.spec.depth * encoder.spec.heads + len(_BINS) + 1, 2, 0.0)

    def features(self, hidden: Tensor, maps: Tensor) -> Tensor:
        """(L, L, F) of a chain's (L, D) vectors, which it does not read, and (M, L, L) maps."""
        far = F.one_hot(separations(len(hidden), hidden.device), len(_BINS) + 1)
        return torch.cat([symmetric(maps.float()).permute(1, 2, 0), far.float()], 2)

    def pairs(self, hidden: Tensor, maps: Tensor) -> Tensor:
        """(L, L) logits."""
        two = self(self.features(hidden, maps))
        found: Tensor = two[..., 1] - two[..., 0]
        return found


class PairNet(nn.Module):
    """A residual convolutional net over the map of pairs (Wang et al. 2017, https://doi.org/10.1371/journal.pcbi.1005324).

    A pair is what its residues' vectors add and multiply up to, the attention between them in every layer and head,
    and its separation; dilated blocks then see its surroundings in the map: helices and strands are stripes there.

    Args:
        encoder: whose output it reads.
        channels: C.
        blocks: convolutions of 3 x 3, with dilations of 1, 2 and 4 by turns.
        dropout: of channels, before each convolution.
    """

    def __init__(self, encoder: Transformer, channels: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.residues = nn.Linear(encoder.embed_dim, channels)
        self.added, self.multiplied = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.attended = nn.Conv2d(encoder.spec.depth * encoder.spec.heads, channels, 1)
        self.far = nn.Embedding(len(_BINS) + 1, channels)
        self.norms = nn.ModuleList(nn.InstanceNorm2d(channels, affine=True) for _ in range(blocks))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=2 ** (at % 3), dilation=2 ** (at % 3)) for at in range(blocks)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(channels, 1, 1)

    def pairs(self, hidden: Tensor, maps: Tensor) -> Tensor:
        """(L, L) symmetric logits of a chain's (L, D) vectors and (M, L, L) maps."""
        each = self.residues(hidden)
        x = self.added(each[:, None] + each[None]) + self.multiplied(each[:, None] * each[None])
        x = (x + self.far(separations(len(hidden), hidden.device))).permute(2, 0, 1)[None]
        x = x + self.attended(len(hidden) * symmetric(maps)[None])
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = x + convolution(self.dropout(F.relu(norm(x))))
        found: Tensor = self.out(F.relu(x))[0, 0]
        return 0.5 * (found + found.T)

    @torch.no_grad()
    def expect(self, share: float) -> None:
        """Begin with this share of contacts everywhere."""
        assert self.out.bias is not None
        self.out.bias.fill_(float(torch.logit(torch.tensor(share), eps=1e-6)))
