"""Which stretches of documents a denoising objective takes out. Needs torch.

Everything is drawn for all documents of all rows at once, in arrays of fixed shape: the tokens to be taken out of the
documents of a row stand one behind the other in T draw slots, and so do the spans that they make up.

B rows, T token slots; a document is known by its number in the row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.rng import uniform

_LENGTH, _PLACE, _NOISE_CUT, _KEPT_CUT = 601, 602, 603, 604  # numbers of the random streams
_LONGEST = 64
"""Of a Poisson length; with a mean of at most 20, one of ten million is longer."""


@dataclass(frozen=True)
class Documents:
    """The documents of packed rows, by number; those that a row has not have length 0.

    Attributes:
        length: (B, T) int64 tokens of each.
        first: (B, T) slot where each begins.
        lead, tail: (B, T) bool, whether it begins and ends with a special entry of its own, which is never taken out.
    """

    length: Tensor
    first: Tensor
    lead: Tensor
    tail: Tensor

    @property
    def free(self) -> Tensor:
        """(B, T) tokens between the special entries."""
        return (self.length - self.lead.long() - self.tail.long()).clamp(min=0)


@dataclass(frozen=True)
class Spans:
    """Stretches of documents, by document and place; one of length 0 stands between two tokens.

    Attributes:
        document: (B, T) int64 number of its document.
        place: (B, T) tokens of its document that stay in front of it.
        length: (B, T) its tokens; 0 where it is a filler.
        real: (B, T) bool; fillers stand behind.
    """

    document: Tensor
    place: Tensor
    length: Tensor
    real: Tensor


def documents(tokens: Tokens, facts: Mapping[str, Any]) -> Documents:
    """Of rows whose documents are numbered in their order, with padding behind them."""
    real = tokens.segments >= 0
    number = tokens.segments.long().clamp(min=0)
    length = torch.zeros_like(tokens.ids).scatter_add(1, number, real.long())
    first = before(length)
    last = (first + length - 1).clamp(min=0)
    begins, ends = (tokens.ids.gather(1, at.clamp(max=length.shape[1] - 1)) for at in (first, last))
    lead = (begins == facts.get("cls_id", -1)) & (length > 0)
    tail = (ends == facts.get("sep_id", -1)) & (length > 1)
    return Documents(length, first, lead, tail)


def before(counts: Tensor) -> Tensor:
    """(B, T) sums of what stands before each of (B, T) counts in its row."""
    return counts.cumsum(1) - counts


def owners(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whose each of T slots is when document d has the next `counts[:, d]` of them.

    Returns:
        (B, T) document, (B, T) number of the slot among its document's, and (B, T) bool whether it is anyone's.
    """
    ends = counts.cumsum(1)
    slots = torch.arange(counts.shape[1], device=counts.device).expand_as(counts).contiguous()
    owner = torch.searchsorted(ends, slots, right=True).clamp(max=counts.shape[1] - 1)
    return owner, slots - before(counts).gather(1, owner), slots < ends[:, -1:]


def noise_tokens(found: Documents, probability: float) -> Tensor:
    """(B, T) tokens to take out of each document: its share, at least one, and never all."""
    wanted = (found.free.double() * probability).round().long().clamp(min=1)
    return wanted.minimum(found.free - 1).clamp(min=0)


def poisson_spans(found: Documents, seeds: Tensor, probability: float, mean: float) -> Spans:
    """BART's text infilling: lengths from a Poisson distribution, 0 among them, each span in a gap between what stays.

    Lewis et al. 2019, https://arxiv.org/abs/1910.13461, section 2.2. Spans are drawn until a document has lost its
    share, and the last one is cut to it; there are never more of them than tokens taken out, so that a document does
    not grow.

    Args:
        found: the documents.
        seeds: (B,) int64.
        probability: share of a document's tokens.
        mean: of the Poisson distribution.
    """
    noise, most = noise_tokens(found, probability), found.length.shape[1]
    owner, at, valid = owners(noise)
    drawn = torch.searchsorted(_poisson(mean, seeds.device), uniform(seeds, most, _LENGTH).double(), right=True)
    drawn = drawn.masked_fill(~valid, 0)
    earlier = before(drawn)
    earlier = earlier - earlier.gather(1, before(noise).gather(1, owner).clamp(max=most - 1))
    budget = noise.gather(1, owner)
    real = valid & (earlier < budget)
    length = torch.where(at == budget - 1, budget - earlier, drawn.minimum(budget - earlier)).masked_fill(~real, 0)
    gaps = (found.free - noise).gather(1, owner) + 1
    place = found.lead.long().gather(1, owner) + (uniform(seeds, most, _PLACE).double() * gaps).long()
    key = torch.where(real, owner * (most + 1) + place, (most + 1) ** 2)
    order = key.sort(dim=1, stable=True).indices
    return Spans(*(part.gather(1, order) for part in (owner, place, length, real)))


def _poisson(mean: float, device: torch.device) -> Tensor:
    """(L,) probability of at most 0, 1, ... tokens, so that a search of a uniform number finds a length."""
    each = [math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) for count in range(_LONGEST)]
    return torch.tensor(each, dtype=torch.float64, device=device).cumsum(0)


def segmented_spans(found: Documents, seeds: Tensor, probability: float, mean: float) -> Spans:
    """T5's span corruption: what goes and what stays are each cut into equally many parts at random, which alternate.

    Raffel et al. 2020, https://arxiv.org/abs/1910.10683, and its code's `random_spans_noise_mask`: a document begins
    with what stays and ends with a span; none is empty.

    Args:
        found: the documents.
        seeds: (B,) int64.
        probability: share of a document's tokens.
        mean: tokens of a span, on average.
    """
    noise = noise_tokens(found, probability)
    kept = found.free - noise
    wanted = (noise.minimum(kept).double() / mean).round().long().clamp(min=1)
    count = torch.where(noise > 0, wanted, 0)
    lengths, stays = _parts(noise, count, seeds, _NOISE_CUT), _parts(kept, count, seeds, _KEPT_CUT)
    owner, _, real = owners(count)
    stayed = stays.cumsum(1)
    begun = stayed - stays
    place = stayed - begun.gather(1, (before(count).gather(1, owner)).clamp(max=stays.shape[1] - 1))
    return Spans(owner, found.lead.long().gather(1, owner) + place, lengths.masked_fill(~real, 0), real)


def _parts(total: Tensor, count: Tensor, seeds: Tensor, salt: int) -> Tensor:
    """(B, T) lengths of the parts, document behind document, each way to cut a document being as likely as another.

    Args:
        total: (B, T) tokens of each document.
        count: (B, T) parts of it, at most `total`; 0 = it is left out.
        seeds: (B,) int64.
        salt: of the random stream.
    """
    owner, at, valid = owners(torch.where(count > 0, total, 0))
    slots = torch.arange(total.shape[1], device=seeds.device)
    score = uniform(seeds, total.shape[1], salt).double().masked_fill(at == 0, -1.0)
    key = torch.where(valid, 2.0 * owner + score, 2.0 * total.shape[1] + 2)
    order = key.sort(dim=1, stable=True).indices
    # Documents stand where they stood, so a token's rank among its own is its place less its document's first.
    place = torch.empty_like(order).scatter(1, order, slots.expand_as(order).contiguous())
    starts = valid & (place - (slots - at) < count.gather(1, owner))
    part = (starts.long().cumsum(1) - 1).clamp(min=0)
    return torch.zeros_like(total).scatter_add(1, part, valid.long())
