"""What wav2vec 2.0 learns from: which frames are hidden, what stands in for them, and how a frame is told from others.
Needs torch.

Baevski et al. 2020, https://arxiv.org/abs/2006.11477. B clips, F frames, W channels of the stem, D width of the
encoder, G groups of V entries, E width of a code, K distractors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.rng import uniform

_STARTS, _DISTRACTORS, _GUMBEL = 401, 402, 403  # numbers of the random streams


def hide_spans(seeds: Tensor, frames: int, share: float, span: int) -> Tensor:
    """(B, F) True in hidden frames: `share` F / `span` spans begin at different frames and may overlap (section 4.2).

    A span has at most a quarter of the frames and there are at least two, so that every hidden frame has another one
    to be told from.

    Args:
        seeds: (B,) int64.
        frames: F, at least 4.
        share: of frames that would be hidden without overlaps: 10 times the paper's p = 0.065.
        span: frames of a span.
    """
    span = max(1, min(span, frames // 4))
    places = frames - span + 1
    count = min(places, max(2, round(share * frames / span)))
    order = uniform(seeds, places, _STARTS).argsort(dim=1, stable=True)
    begun = torch.zeros(len(seeds), frames, device=seeds.device).scatter(1, order[:, :count], 1.0).cumsum(1)
    return begun > F.pad(begun, (span, 0))[:, :frames]


def draw_distractors(seeds: Tensor, hidden: Tensor, count: int) -> Tensor:
    """(B, F, K) int64: for each hidden frame other hidden frames of its clip, each as likely, repeats allowed.

    At frames that are not hidden the numbers mean nothing.

    Args:
        seeds: (B,) int64.
        hidden: (B, F) bool, at least two of each clip.
        count: K.
    """
    batch, frames = hidden.shape
    ordered = (~hidden).int().argsort(dim=1, stable=True)
    rank = hidden.int().cumsum(1) - 1
    others = (hidden.sum(1) - 1)[:, None, None]
    draws = uniform(seeds, frames * count, _DISTRACTORS).view(batch, frames, count)
    chosen = torch.minimum((draws * others).long(), others - 1)
    chosen = chosen + (chosen >= rank[:, :, None]).long()
    return ordered.gather(1, chosen.flatten(1)).view(batch, frames, count)


def gumbel_noise(seeds: Tensor, frames: int, groups: int, entries: int) -> Tensor:
    """(B, F, G, V) standard Gumbel."""
    draws = uniform(seeds, frames * groups * entries, _GUMBEL).clamp(min=2.0**-25)
    return -torch.log(-torch.log(draws)).view(len(seeds), frames, groups, entries)


@dataclass(frozen=True)
class Codes:
    """Quantised frames.

    Attributes:
        vectors: (B, F, E).
        entries: (B, F, G) int64 numbers of the chosen entries.
        shares: (B, F, G, V) probability of each, for the diversity of all: without noise in training, of the choice
            itself in evaluation.
    """

    vectors: Tensor
    entries: Tensor
    shares: Tensor


class Quantiser(nn.Module):
    """A product of codebooks, each entry chosen by a hard Gumbel softmax with a straight-through gradient (Jang et al.
    2016, https://arxiv.org/abs/1611.01144); in evaluation the likeliest.

    Attributes:
        temperature: of the choice, a buffer: it falls while training.
    """

    temperature: Tensor

    def __init__(self, inside: int, groups: int, entries: int, width: int) -> None:
        super().__init__()
        self.groups, self.size = groups, entries
        self.choose = nn.Linear(inside, groups * entries)
        nn.init.normal_(self.choose.weight)
        nn.init.zeros_(self.choose.bias)
        self.entries = nn.Parameter(torch.rand(groups, entries, width // groups))
        self.register_buffer("temperature", torch.tensor(2.0))

    def forward(self, features: Tensor, noise: Tensor) -> Codes:
        """Codes of features (B, F, W), with Gumbel noise (B, F, G, V)."""
        logits = self.choose(features).float().unflatten(2, (self.groups, self.size))
        shares = logits.softmax(-1)
        if self.training:
            soft = ((logits + noise) / self.temperature).softmax(-1)
            chosen = soft.argmax(-1)
            picked = F.one_hot(chosen, self.size).to(soft.dtype) - soft.detach() + soft
        else:
            chosen = logits.argmax(-1)
            shares = picked = F.one_hot(chosen, self.size).to(logits.dtype)
        vectors = torch.einsum("bfgv,gve->bfge", picked, self.entries.float()).flatten(2)
        return Codes(vectors.to(features.dtype), chosen, shares)


def told_apart(context: Tensor, codes: Tensor, same: Tensor, distractors: Tensor, temperature: float) -> Tensor:
    """(B, F, 1 + K) cosines by temperature of each frame's context with its own code and with its distractors'.

    All pairs of a clip's frames are one product, from which the distractors are picked: gathering their vectors first,
    as the public code does, moves K times as many bytes.

    Args:
        context, codes: (B, F, E).
        same: (B, F, G) int64; a distractor with the very same entries is no distractor.
        distractors: (B, F, K) int64 frames.
        temperature: divides the cosines.
    """
    cosines = torch.bmm(F.normalize(context.float(), dim=2), F.normalize(codes.float(), dim=2).transpose(1, 2))
    logits = cosines / temperature
    equal = (same[:, :, None] == same[:, None]).all(-1)
    others = logits.masked_fill(equal, float("-inf")).gather(2, distractors)
    return torch.cat([logits.diagonal(dim1=1, dim2=2)[:, :, None], others], 2)


def used_entries(shares: Tensor, hidden: Tensor) -> Tensor:
    """(B, G, V) probabilities of the entries summed over a clip's hidden frames."""
    return (shares * hidden[:, :, None, None]).sum(1)


def perplexity(marginal: Tensor) -> Tensor:
    """The scalar number of entries in use, summed over the groups, of mean probabilities (G, V)."""
    return torch.exp(-(marginal * torch.log(marginal.clamp(min=1e-7))).sum(-1)).sum()
