"""Which tokens are hidden."""

from __future__ import annotations

import pytest
import torch

from ssl_core.batch import Tokens
from ssl_core.masks import MaskedTokens, choose_places, mask_tokens

FACTS = {"vocab_size": 500, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
ROWS, LENGTH = 200, 100


def rows(starts: torch.Tensor | None = None) -> Tokens:
    """Rows with special entries here and there and padding at the end of the odd ones."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 500, (ROWS, LENGTH), generator=generator)
    segments = torch.zeros(ROWS, LENGTH, dtype=torch.int32)
    segments[1::2, 60:] = -1
    positions = torch.arange(LENGTH).expand(ROWS, LENGTH)
    return Tokens(torch.where(segments < 0, 0, ids), segments, positions, starts)


def masked(probability: float = 0.15, whole_word: bool = False, starts: torch.Tensor | None = None) -> MaskedTokens:
    return mask_tokens(rows(starts), torch.arange(ROWS), FACTS, probability, whole_word)


def hidden(result: MaskedTokens) -> torch.Tensor:
    """(B, T) bool, where a place counts."""
    out = torch.zeros(ROWS, LENGTH)
    return out.scatter(1, result.places, result.weights) > 0


def test_the_share_of_real_tokens_is_hidden() -> None:
    ordinary = (rows().segments >= 0) & (rows().ids >= 5)
    expected = (0.15 * ordinary.sum(1)).round().long()
    assert torch.equal(hidden(masked()).sum(1), expected)


def test_special_entries_and_padding_are_never_hidden() -> None:
    where = hidden(masked(0.6))
    assert not where[rows().segments < 0].any()
    assert rows().ids[where].min() >= 5


def test_targets_are_the_true_ids_and_other_places_keep_theirs() -> None:
    result = masked()
    assert torch.equal(result.targets, rows().ids.gather(1, result.places))
    untouched = ~hidden(result)
    assert torch.equal(result.tokens.ids[untouched], rows().ids[untouched])


def test_of_the_hidden_80_percent_are_masked_10_random_10_kept() -> None:
    result = masked(0.6)
    where = hidden(result)
    before, after = rows().ids[where], result.tokens.ids[where]
    count = len(before)
    assert count > 8000
    assert (after == 4).float().mean() == pytest.approx(0.8, abs=5 * (0.16 / count) ** 0.5)
    assert (after == before).float().mean() == pytest.approx(0.1, abs=5 * (0.09 / count) ** 0.5 + 1 / 495)


def test_a_random_entry_is_any_ordinary_one_and_never_special() -> None:
    result = masked(0.6)
    where = hidden(result)
    before, after = rows().ids[where], result.tokens.ids[where]
    random = after[(after != 4) & (after != before)]
    assert random.min() >= 5
    assert random.max() < 500
    assert len(random.unique()) > 300


def test_every_slot_is_hidden_about_as_often() -> None:
    eligible = torch.ones(5000, 20, dtype=torch.bool)
    places, weights = choose_places(eligible, None, torch.arange(5000), 0.15)
    counts = torch.zeros(20).scatter_add_(0, places.flatten(), weights.flatten())
    assert counts.sum() == 15_000
    assert (counts - 750).abs().max() < 5 * 750**0.5


def test_the_number_of_places_does_not_depend_on_the_draw() -> None:
    assert masked(0.15).places.shape == (ROWS, 15)


def test_whole_words_are_hidden_together_or_not_at_all() -> None:
    starts = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(1)) < 0.5
    starts[:, 0] = True
    tokens = rows(starts)
    where = hidden(masked(0.3, whole_word=True, starts=starts))
    word = starts.long().cumsum(1)
    ordinary = (tokens.segments >= 0) & (tokens.ids >= 5)
    for row in range(ROWS):
        for number in word[row].unique():
            # A special entry inside cuts a word in two, which may have different fates.
            part = where[row][(word[row] == number) & (tokens.segments[row] >= 0)]
            if ordinary[row][(word[row] == number) & (tokens.segments[row] >= 0)].all():
                assert part.all() or not part.any()
    share = where.sum() / ordinary.sum()
    assert 0.25 < share <= 0.3


def test_a_row_of_one_long_word_still_hides_something() -> None:
    starts = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    assert (hidden(masked(0.15, whole_word=True, starts=starts)).sum(1) > 0).all()


def test_whole_words_need_to_know_where_words_begin() -> None:
    with pytest.raises(ValueError, match="word_starts"):
        masked(whole_word=True)


def test_a_row_without_ordinary_tokens_counts_for_nothing() -> None:
    tokens = Tokens(torch.full((1, 20), 2), torch.zeros(1, 20, dtype=torch.int32), torch.arange(20)[None])
    result = mask_tokens(tokens, torch.tensor([1]), FACTS, 0.15, whole_word=False)
    assert result.weights.sum() == 0
    assert torch.equal(result.tokens.ids, tokens.ids)


def test_a_mask_depends_on_its_own_seed_alone() -> None:
    tokens = rows()
    part = Tokens(tokens.ids[7:9], tokens.segments[7:9], tokens.positions[7:9])
    alone = mask_tokens(part, torch.arange(7, 9), FACTS, 0.15, whole_word=False)
    assert torch.equal(alone.tokens.ids, masked().tokens.ids[7:9])
