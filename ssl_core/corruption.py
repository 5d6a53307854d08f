"""Documents with stretches taken out, and what a decoder has to write: BART's infilling, T5's span corruption.

Needs torch. B rows, T token slots of the row, C slots of what is written; a document is known by its number in the row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.errors import SpecError
from ssl_core.noise_spans import Documents, Spans, before, documents, owners, poisson_spans, segmented_spans

Noise = Literal["infilling", "span_corruption"]
_SHORT = 16
"""There is room for the ends of documents of so many tokens on average; a row of shorter ones loses its last."""


@dataclass(frozen=True)
class Corrupted:
    """What is read and what is to be written. Ids from the vocabulary's size on are sentinels.

    Attributes:
        source: (B, T or fewer) the documents with stretches taken out.
        written: (B, C or fewer) what the decoder is given: the targets, moved one to the right.
        targets: (B, C or fewer) int64 what comes next at each slot of `written`.
        hidden: (B, C or fewer) bool, targets that were taken out of the source.
    """

    source: Tokens
    written: Tokens
    targets: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Corruption:
    """How rows are corrupted.

    Attributes:
        noise: `infilling`, each span becomes one mask token and the whole document is written again; or
            `span_corruption`, each becomes a sentinel of its own, and sentinels and spans are written.
        probability: share of a document's tokens.
        mean: tokens of a span, on average.
    """

    noise: Noise
    probability: float
    mean: float

    def __call__(self, tokens: Tokens, seeds: Tensor, facts: Mapping[str, Any]) -> Corrupted:
        """Corrupt packed rows. A document of one token stays whole, and `span_corruption` writes nothing for it.

        The decoder begins with the tokenizer's end entry, as BART's does, and has to write it at a document's end; not
        for a document that fills the whole row, which has no slot left and probably no end.

        Args:
            tokens: (B, T) rows; special entries that frame a document stay.
            seeds: (B,) int64.
            facts: the special ids and `vocab_size`.

        Raises:
            SpecError: `no_mask_token`, `no_end_token`: the base model's tokenizer lacks what is needed.
        """
        if "sep_id" not in facts:
            text = "this model's tokenizer has no entry that ends a document; choose an objective that writes none"
            raise SpecError("no_end_token", text, "model")
        if self.noise == "infilling" and "mask_id" not in facts:
            text = "this model's tokenizer has no entry for masked tokens; choose objective.noise span_corruption"
            raise SpecError("no_mask_token", text, "model")
        found = documents(tokens, facts)
        infilling = self.noise == "infilling"
        spans = (poisson_spans if infilling else segmented_spans)(found, seeds, self.probability, self.mean)
        marks = torch.full_like(spans.place, facts.get("mask_id", 0))
        if not infilling:
            marks = facts["vocab_size"] + _numbers(spans)
        source, begins = _source(tokens, found, spans, marks)
        pieces = _whole(tokens, found, spans, begins) if infilling else _taken(tokens, spans, begins, marks)
        return _written(source, pieces, facts["sep_id"], self._slots(tokens.ids.shape[1]))

    def sentinels(self, length: int) -> int:
        """The most spans that a document of `length` tokens can have, each with a sentinel of its own; 0: none has."""
        if self.noise == "infilling":
            return 0
        return max(1, math.ceil((self.probability * length + 1) / self.mean))

    def _slots(self, length: int) -> int:
        """C for rows of T slots: a bound that does not depend on the draw."""
        ends = length // _SHORT + 1
        most = length + ends
        if self.noise == "infilling":
            return most
        return min(most, math.ceil(self.probability * length * (1 + 1 / self.mean)) + 3 * ends)


def only_first(corrupted: Corrupted, most: int) -> Corrupted:
    """The first document of each row alone, at most `most` of its tokens."""

    def alone(tokens: Tokens) -> Tokens:
        segments = torch.where(tokens.segments == 0, 0, -1).int()[:, :most]
        return Tokens(tokens.ids[:, :most], segments, tokens.positions[:, :most])

    targets, hidden = corrupted.targets[:, :most], corrupted.hidden[:, :most]
    return Corrupted(alone(corrupted.source), alone(corrupted.written), targets, hidden)


def _source(tokens: Tokens, found: Documents, spans: Spans, marks: Tensor) -> tuple[Tokens, Tensor]:
    """The rows with a mark for each span, and (B, T) the slot of `tokens` where each span begins.

    Args:
        tokens, found, spans: rows, their documents, and what to take out of them.
        marks: (B, T) ids that stand for the spans.
    """
    width = tokens.ids.shape[1]
    blank = torch.zeros_like(tokens.ids)
    taken = blank.scatter_add(1, spans.document, spans.length)
    count = blank.scatter_add(1, spans.document, spans.real.long())
    stays = found.length - taken
    size = stays + count
    owner, at, valid = owners(stays)
    # Spans stand by document and place, so a search finds how many stand before a token that stays.
    keys = torch.where(spans.real, spans.document * (width + 1) + spans.place, (width + 1) ** 2)
    passed = torch.searchsorted(keys, owner * (width + 1) + at, right=True)
    gone = F.pad(spans.length.cumsum(1), (1, 0)).gather(1, passed) - before(taken).gather(1, owner)
    from_slot = (found.first.gather(1, owner) + at + gone).clamp(max=width - 1)
    place = at + passed - before(count).gather(1, owner)
    number = _numbers(spans)
    kept = _Pieces(owner, place, tokens.ids.gather(1, from_slot), torch.zeros_like(valid), valid)
    put = _Pieces(spans.document, spans.place + number, marks, torch.zeros_like(valid), spans.real)
    ids, segments, positions, _ = _laid_out([kept, put], size, width, width)
    lost = before(spans.length) - before(taken).gather(1, spans.document)
    return Tokens(ids, segments, positions), found.first.gather(1, spans.document) + spans.place + lost


@dataclass(frozen=True)
class _Pieces:
    """Tokens on their way into rows: document, place in it, id, whether it was hidden, and whether it is one."""

    document: Tensor
    place: Tensor
    ids: Tensor
    hidden: Tensor
    real: Tensor


def _numbers(spans: Spans) -> Tensor:
    """(B, T) the number of each span in its document, from 0."""
    count = torch.zeros_like(spans.place).scatter_add(1, spans.document, spans.real.long())
    slots = torch.arange(spans.place.shape[1], device=spans.place.device)
    return (slots - before(count).gather(1, spans.document)).clamp(min=0)


def _whole(tokens: Tokens, found: Documents, spans: Spans, begins: Tensor) -> list[_Pieces]:
    """Every token of the documents, and an end where a document has none of its own."""
    width = tokens.ids.shape[1]
    slots = torch.arange(width, device=tokens.ids.device).expand_as(tokens.ids)
    real = tokens.segments >= 0
    number = tokens.segments.long().clamp(min=0)
    # One up where a span begins and one down behind it: above zero in between.
    edges = torch.zeros(len(slots), width + 1, dtype=torch.long, device=slots.device)
    edges = edges.scatter_add(1, begins.clamp(max=width), spans.real.long())
    edges = edges.scatter_add(1, (begins + spans.length).clamp(max=width), -spans.real.long())
    hidden = edges.cumsum(1)[:, :width] > 0
    words = _Pieces(number, slots - found.first.gather(1, number), tokens.ids, hidden & real, real)
    return [words, _ends(slots, found.length, (found.length > 0) & ~found.tail)]


def _taken(tokens: Tokens, spans: Spans, begins: Tensor, marks: Tensor) -> list[_Pieces]:
    """Each span behind its mark, and an end."""
    width = tokens.ids.shape[1]
    number = _numbers(spans)
    taken = torch.zeros_like(tokens.ids).scatter_add(1, spans.document, spans.length)
    count = torch.zeros_like(tokens.ids).scatter_add(1, spans.document, spans.real.long())
    earlier = before(spans.length)
    lost = earlier - before(taken).gather(1, spans.document)
    put = _Pieces(spans.document, number + lost, marks, torch.zeros_like(spans.real), spans.real)
    span, at, valid = owners(spans.length)
    from_slot = (begins.gather(1, span) + at).clamp(max=width - 1)
    place = (number + lost).gather(1, span) + 1 + at
    words = _Pieces(spans.document.gather(1, span), place, tokens.ids.gather(1, from_slot), valid, valid)
    slots = torch.arange(width, device=tokens.ids.device).expand_as(tokens.ids)
    return [put, words, _ends(slots, taken + count, count > 0)]


def _ends(documents: Tensor, length: Tensor, real: Tensor) -> _Pieces:
    """An end (id -1 for now) behind each document of (B, T) `length`."""
    return _Pieces(documents, length, torch.full_like(length, -1), torch.zeros_like(real), real)


def _written(source: Tokens, pieces: list[_Pieces], end: int, slots: int) -> Corrupted:
    """Targets from their pieces, and what the decoder is given."""
    width = pieces[0].document.shape[1]
    size = torch.zeros_like(pieces[0].place)
    for piece in pieces:
        size = size.scatter_add(1, piece.document, (piece.real & (piece.place < width)).long())
    targets, segments, positions, hidden = _laid_out(pieces, size, slots, width)
    targets = targets.masked_fill(targets < 0, end)
    earlier = torch.where(positions == 0, end, F.pad(targets[:, :-1], (1, 0)))
    written = Tokens(earlier.masked_fill(segments < 0, 0), segments, positions)
    return Corrupted(_trimmed(source), _trimmed(written), _cut(targets, segments), _cut(hidden, segments))


def _laid_out(pieces: list[_Pieces], size: Tensor, slots: int, longest: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of ids, segments, positions and the `hidden` of their pieces, each (B, slots).

    Args:
        pieces: in any order.
        size: (B, T) pieces of each document.
        slots: of a row; what goes beyond is left out.
        longest: places of a document; what goes beyond is left out.
    """
    document, place, ids, hidden, real = (
        torch.cat([getattr(piece, name) for piece in pieces], 1)
        for name in ("document", "place", "ids", "hidden", "real")
    )
    slot = before(size).gather(1, document) + place
    slot = torch.where(real & (place < longest) & (slot < slots), slot, slots)
    blank = torch.zeros(len(slot), slots + 1, dtype=torch.long, device=slot.device)

    def put(values: Tensor, filler: int) -> Tensor:
        return (blank + filler).scatter(1, slot, values)[:, :slots]

    return put(ids, 0), put(document, -1).int(), put(place, 0), put(hidden.long(), 0) > 0


def _trimmed(tokens: Tokens) -> Tokens:
    """Without the slots that no row uses, where asking is free."""
    ids, segments, positions = (_cut(part, tokens.segments) for part in (tokens.ids, tokens.segments, tokens.positions))
    return Tokens(ids, segments, positions)


def _cut(part: Tensor, segments: Tensor) -> Tensor:
    """(B, C or fewer): a GPU would have to be waited for, and keeps all slots."""
    if segments.device.type != "cpu" or torch.compiler.is_compiling():
        return part
    used = (segments >= 0).any(0).nonzero()
    return part[:, : int(used.max()) + 1 if len(used) else 1]
