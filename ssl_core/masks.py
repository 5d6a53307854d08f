"""Which tokens an objective hides, as index pairs of fixed shape. Needs torch.

Boolean masks have shapes that depend on the draw: they break full-graph compilation and wait for the device. Here every
row has the same number of places K, and a weight says which of them count.

B rows, T token slots, K = round(probability x T) places at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.errors import SpecError
from ssl_core.rng import mix, randint, uniform

_CHOICE, _FATE, _SUBSTITUTE, _DROPOUT = 201, 202, 203, 205  # numbers of the random streams
SPECIALS = ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id")


@dataclass(frozen=True)
class MaskedTokens:
    """Hidden places and what stood there.

    Attributes:
        tokens: the rows with some ids replaced.
        places: (B, K) int64 slots; those of weight 0 are fillers.
        targets: (B, K) int64 the true ids.
        weights: (B, K) float32, 1 where the place counts.
    """

    tokens: Tokens
    places: Tensor
    targets: Tensor
    weights: Tensor


def choose_places(
    eligible: Tensor, starts: Tensor | None, seeds: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """`places` and `weights` (B, K): the share `probability` of each row's eligible slots, at random.

    Args:
        eligible: (B, T) bool, slots that may be hidden.
        starts: (B, T) bool where a word begins: whole words are hidden, none in part, so a few slots fewer;
            None = slots one by one.
        seeds: (B,) int64.
        probability: share of the eligible slots; at least one slot of a row that has any.
    """
    length = eligible.shape[1]
    most = max(1, round(probability * length))
    scores = uniform(seeds, length, _CHOICE)
    if starts is not None:
        ordinal = (starts | ~eligible).long().cumsum(1)
        word = ordinal - ordinal[:, :1]
        scores = scores.gather(1, word)
    scores = scores.masked_fill(~eligible, 2.0)
    # Stable, so the tokens of a word, which share a score, stay together and in order.
    order = scores.sort(dim=1, stable=True).indices
    places = order[:, :most]
    count = eligible.sum(1)
    wanted = (probability * count).round().long().clamp(min=1, max=most).minimum(count)
    chosen = torch.arange(most, device=seeds.device) < wanted[:, None]
    if starts is not None:
        chosen &= _whole(word.gather(1, order), most, wanted)
    return places, chosen.float()


def _whole(words: Tensor, most: int, wanted: Tensor) -> Tensor:
    """(B, K) True for places of words that end within the first `wanted` places.

    The first word always counts, as far as it fits: a row of one long word would teach nothing.
    """
    length = words.shape[1]
    after = torch.arange(length, device=words.device)
    beyond = after >= wanted[:, None]
    # The word of the first place that is not taken is cut if it is also the word of the last that is.
    next_word = words.gather(1, wanted[:, None].clamp(max=length - 1))
    cut = (words == next_word) & ~beyond & (wanted[:, None] < length)
    first = words == words[:, :1]
    return (~cut | first)[:, :most]


def mask_tokens(
    tokens: Tokens, seeds: Tensor, facts: Mapping[str, Any], probability: float, whole_word: bool
) -> MaskedTokens:
    """BERT's corruption: of the chosen places 80 % become [MASK], 10 % a random entry, 10 % stay (Devlin et al. 2019).

    Special entries and padding are never chosen, and no special entry is put in as a random one.

    Args:
        tokens: rows; `word_starts` is needed for `whole_word`.
        seeds: (B,) int64.
        facts: the special ids and `vocab_size`.
        probability: share of the real tokens.
        whole_word: hide whole words (BERT's later models: "Whole Word Masking").

    Raises:
        SpecError: `no_mask_token`, the base model's tokenizer has none.
    """
    if "mask_id" not in facts:
        text = "this model's tokenizer has no entry for masked tokens; choose an objective that masks none"
        raise SpecError("no_mask_token", text, "model")
    # An imported tokenizer may lack some, and one entry may have several roles.
    special = torch.tensor(sorted({facts[name] for name in SPECIALS if name in facts}), device=tokens.ids.device)
    eligible = (tokens.segments >= 0) & ~torch.isin(tokens.ids, special)
    starts = None
    if whole_word:
        if tokens.word_starts is None:
            raise ValueError("whole-word masking needs Tokens.word_starts")
        starts = tokens.word_starts | (tokens.positions == 0)
    places, weights = choose_places(eligible, starts, seeds, probability)
    targets = tokens.ids.gather(1, places)
    fate = uniform(seeds, places.shape[1], _FATE)
    substitute = randint(seeds, places.shape[1], _SUBSTITUTE, facts["vocab_size"] - len(special))
    for id in special.unbind():
        substitute = substitute + (substitute >= id)
    replaced = torch.where(fate < 0.8, facts["mask_id"], torch.where(fate < 0.9, substitute, targets))
    ids = tokens.ids.scatter(1, places, torch.where(weights > 0, replaced, targets))
    return MaskedTokens(
        Tokens(ids, tokens.segments, tokens.positions, tokens.word_starts), places, targets, weights
    )


def all_masked(masked: MaskedTokens, mask_id: int) -> MaskedTokens:
    """The same places, each of which becomes [MASK]: as ELECTRA's generator sees them."""
    hidden = torch.where(masked.weights > 0, mask_id, masked.targets)
    tokens = replace(masked.tokens, ids=masked.tokens.ids.scatter(1, masked.places, hidden))
    return replace(masked, tokens=tokens)


def seeded_dropout(x: Tensor, seeds: Tensor, share: float) -> Tensor:
    """`x` (B, T, D) with a share of its numbers zero and the rest grown, drawn from the seeds (B,) alone."""
    batch, length, width = x.shape
    tokens = mix(seeds[:, None], torch.arange(length, device=seeds.device)).flatten()
    kept = uniform(tokens, width, _DROPOUT).view(batch, length, width) >= share
    return x * kept / (1 - share)
