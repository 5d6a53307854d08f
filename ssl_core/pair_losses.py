"""Losses that bring pictures and texts together. Needs torch.

N pairs, D dimensions, row i of one side belongs to row i of the other. With several processes, over the rows of all.
A caption that stands at several pictures of a batch is right for each of them: such pairs are neither pulled together
nor pushed apart, where the published losses would take them for negatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.batch import Tokens
from ssl_core.distributed import gathered
from ssl_core.losses import cosines


class Scale(nn.Module):
    """What multiplies cosines before a loss, learned by its logarithm; and a bias where one is given."""

    def __init__(self, scale: float, bias: float | None = None) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(scale).log())
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    def forward(self) -> Tensor:
        """()."""
        return self.logarithm.exp()


def fingerprints(texts: Tokens) -> Tensor:
    """(N,) int64, equal for equal texts whatever their padding: a polynomial of the ids modulo 2^64.

    A token that a view leaves out counts too. It keeps its position, its place in the row, where padding has 0.
    """
    places = torch.arange(1, texts.ids.shape[1] + 1, device=texts.ids.device)
    factors = (places * 0x1E3779B97F4A7C15) ^ (places << 21)
    ids = torch.where(texts.positions == places - 1, texts.ids + 1, 0)
    return ((ids * ids + 0x2545F491) * ids * (factors | 1)).sum(1)


def clip(images: Tensor, texts: Tensor, scale: Tensor, names: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each picture finds its text among all, and each text its picture: Radford et al. 2021,
    https://arxiv.org/abs/2103.00020, figure 3.

    Args:
        images, texts: (N, D).
        scale: () multiplies the cosines: 1 / temperature.
        names: (N,) of the texts, equal where these are.

    Returns:
        The loss, and the shares of pictures and of texts whose partner scores highest (detached).
    """
    logits, twins = _logits(images, texts, scale, names)
    logits = logits.masked_fill(twins, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    loss = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
    return (loss, *_found(logits))


def siglip(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, names: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair is told right or wrong by itself: Zhai et al. 2023, https://arxiv.org/abs/2303.15343, algorithm 1.

    Args:
        images, texts: (N, D).
        scale, bias: () each; a pair's logit is scale x cosine + bias.
        names: (N,) of the texts, equal where these are.

    Returns:
        The loss (the sum over all pairs by N), and the shares of pictures and of texts whose partner scores highest.
    """
    logits, twins = _logits(images, texts, scale, names)
    signs = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    each = F.logsigmoid(signs * (logits + bias)).masked_fill(twins, 0.0)
    return (-each.sum() / len(logits), *_found(logits.masked_fill(twins, float("-inf"))))


def _logits(images: Tensor, texts: Tensor, scale: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
    """(N, N) scaled cosines of pictures (rows) and texts, and where a text is another row's twin."""
    known = gathered(names)
    twins = known[:, None] == known[None, :]
    twins = twins & ~torch.eye(len(known), dtype=torch.bool, device=known.device)
    return cosines(gathered(images), gathered(texts)) * scale, twins


@torch.no_grad()
def _found(logits: Tensor) -> tuple[Tensor, Tensor]:
    target = torch.arange(len(logits), device=logits.device)
    return (logits.argmax(1) == target).float().mean(), (logits.argmax(0) == target).float().mean()
