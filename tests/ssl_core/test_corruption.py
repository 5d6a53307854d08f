"""Infilling and span corruption: T5's own steps re-derived, BART's laws, and what neither may touch."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_core.batch import Tokens
from ssl_core.corruption import Corrupted, Corruption, Noise
from ssl_core.errors import SpecError
from ssl_core.noise_spans import documents, noise_tokens, poisson_spans, segmented_spans

SIZE, MASK, END, START = 5000, 4, 3, 2
FACTS = {"vocab_size": SIZE, "pad_id": 0, "unk_id": 1, "cls_id": START, "sep_id": END, "mask_id": MASK}
BART, T5 = Corruption("infilling", 0.3, 3.0), Corruption("span_corruption", 0.15, 3.0)
BOTH = pytest.mark.parametrize("corruption", [BART, T5, Corruption("span_corruption", 0.5, 2.0)], ids=str)


def rows(*lengths: list[int], framed: bool = False) -> Tokens:
    """Rows of documents of these lengths, padded to the longest; every token is another id."""
    longest = max(map(sum, lengths))
    ids = 10 + torch.arange(len(lengths) * longest).view(len(lengths), longest)
    segments = torch.full_like(ids, -1).int()
    positions = torch.zeros_like(ids)
    for row, sizes in enumerate(lengths):
        at = 0
        for number, size in enumerate(sizes):
            segments[row, at : at + size] = number
            positions[row, at : at + size] = torch.arange(size)
            if framed:
                ids[row, at], ids[row, at + size - 1] = START, END
            at += size
    return Tokens(ids.masked_fill(segments < 0, 0), segments, positions)


MIXED = rows([48], [20, 9, 19], [1, 2, 3, 4, 5, 6], [30, 1, 17], [2] * 3 + [40])
SEEDS = torch.arange(5)


def words(tokens: Tokens, row: int, document: int) -> list[int]:
    found: list[int] = tokens.ids[row][tokens.segments[row] == document].tolist()
    return found


def told(corrupted: Corrupted, row: int, document: int) -> list[int]:
    found: list[int] = corrupted.targets[row][corrupted.written.segments[row] == document].tolist()
    return found


def every_document() -> list[tuple[int, int]]:
    return [(row, number) for row in range(5) for number in range(int(MIXED.segments[row].max()) + 1)]


def long_row(count: int, length: int) -> Tokens:
    """The same single document in many rows."""
    one = rows([length])
    return Tokens(*(part.expand(count, -1) for part in (one.ids, one.segments, one.positions)))


def random_spans_noise_mask(noise_parts: list[int], kept_parts: list[int]) -> list[bool]:
    """T5's `random_spans_noise_mask` after its two random segmentations: they alternate, what stays first."""
    interleaved = np.stack([kept_parts, noise_parts], 1).reshape(-1)
    starts = np.zeros(sum(noise_parts) + sum(kept_parts), dtype=int)
    starts[np.cumsum(interleaved)[:-1]] = 1
    return [bool(number % 2) for number in np.cumsum(starts)]


def to_unique_sentinels(ids: list[int], noise: list[bool]) -> list[int]:
    """T5's `noise_span_to_unique_sentinel`, with sentinels that count up from the vocabulary's size."""
    first = [hidden and not (at and noise[at - 1]) for at, hidden in enumerate(noise)]
    numbered = [SIZE + sum(first[: at + 1]) - 1 if begins else ids[at] for at, begins in enumerate(first)]
    return [each for at, each in enumerate(numbered) if first[at] or not noise[at]]


@pytest.mark.parametrize("corruption", [T5, Corruption("span_corruption", 0.5, 2.0)], ids=str)
def test_span_corruption_is_t5_s_inputs_and_targets_for_the_same_spans(corruption: Corruption) -> None:
    corrupted = corruption(MIXED, SEEDS, FACTS)
    spans = segmented_spans(documents(MIXED, FACTS), SEEDS, corruption.probability, corruption.mean)
    for row, number in every_document():
        mine = (spans.document[row] == number) & spans.real[row]
        lengths, places = spans.length[row][mine].tolist(), spans.place[row][mine].tolist()
        ids = words(MIXED, row, number)
        if len(ids) == 1:
            assert not lengths and words(corrupted.source, row, number) == ids and not told(corrupted, row, number)
            continue
        kept = np.diff([0, *places]).tolist()
        noise = random_spans_noise_mask(lengths, kept)
        assert words(corrupted.source, row, number) == to_unique_sentinels(ids, noise)
        # The targets are the same with the mask turned round, as in T5; its tokenizer adds the end.
        inverse = [not hidden for hidden in noise]
        assert told(corrupted, row, number) == [*to_unique_sentinels(ids, inverse), END]


@pytest.mark.parametrize("length", [2, 3, 7, 20, 48, 512])
@pytest.mark.parametrize(("share", "mean"), [(0.15, 3.0), (0.5, 2.0), (0.05, 10.0)])
def test_the_numbers_of_noise_tokens_and_spans_are_t5_s(length: int, share: float, mean: float) -> None:
    spans = segmented_spans(documents(rows([length]), FACTS), torch.zeros(1, dtype=torch.long), share, mean)
    noise = min(max(int(np.round(length * share)), 1), length - 1)
    assert int(spans.length.sum()) == noise
    assert int(spans.real.sum()) == max(int(np.round(min(noise, length - noise) / mean)), 1)


def test_every_segmentation_of_t5_is_as_likely_as_any_other() -> None:
    seeds = torch.arange(18_000)
    spans = segmented_spans(documents(long_row(len(seeds), 9), FACTS), seeds, 0.5, 2.0)
    drawn = Counter(
        (tuple(lengths), tuple(places))
        for lengths, places in zip(spans.length[:, :2].tolist(), spans.place[:, :2].tolist(), strict=True)
    )
    # 4 of 9 tokens go in 2 spans: 3 ways to cut them and 4 to cut the 5 that stay.
    ways = {((cut, 4 - cut), (stay, 5)) for cut, stay in itertools.product((1, 2, 3), (1, 2, 3, 4))}
    assert set(drawn) == ways
    expected = len(seeds) / len(ways)
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in drawn.values())


def test_infilling_leaves_what_stays_in_order_and_writes_the_whole_document() -> None:
    corrupted = BART(MIXED, SEEDS, FACTS)
    for row, number in every_document():
        ids = words(MIXED, row, number)
        end = [] if len(ids) == 48 else [END]  # a document that fills the row has no slot for it
        assert told(corrupted, row, number) == [*ids, *end]
        hidden = corrupted.targets[row][corrupted.hidden[row] & (corrupted.written.segments[row] == number)].tolist()
        stays = [each for each in words(corrupted.source, row, number) if each != MASK]
        assert stays == [each for each in ids if each not in hidden]


@BOTH
def test_each_document_loses_its_share_and_never_all(corruption: Corruption) -> None:
    corrupted = corruption(MIXED, SEEDS, FACTS)
    for row, number in every_document():
        length = len(words(MIXED, row, number))
        hidden = int((corrupted.hidden[row] & (corrupted.written.segments[row] == number)).sum())
        assert hidden == min(max(round(corruption.probability * length), 1), length - 1)


def test_span_lengths_of_infilling_are_poisson_with_zeros_among_them() -> None:
    seeds = torch.arange(600)
    spans = poisson_spans(documents(long_row(600, 512), FACTS), seeds, 0.3, 3.0)
    # The last span of a document is cut to its share, so it is left out of a law that holds before the cut.
    assert bool((spans.length.sum(1) == 154).all())
    lengths = spans.length[spans.real]
    count = len(lengths)
    for length in range(8):
        wanted = math.exp(-3) * 3**length / math.factorial(length)
        share = float((lengths == length).float().mean())
        assert share == pytest.approx(wanted, abs=5 * math.sqrt(wanted / count) + 1 / 50)
    assert float(lengths.float().mean()) == pytest.approx(3.0, abs=0.08)


def test_spans_of_infilling_fall_anywhere() -> None:
    seeds = torch.arange(4000)
    corrupted = BART(long_row(4000, 64), seeds, FACTS)
    share = corrupted.hidden[:, :64].float().mean(0)
    sigma = math.sqrt(0.3 * 0.7 / 4000)
    assert float(share.mean()) == pytest.approx(19 / 64)
    # A span does not reach across an edge, so tokens there are in fewer spans, on both sides alike.
    inner = share[6:-6]
    assert float((inner - inner.mean()).abs().max()) < 5 * sigma
    assert float((share - share.flip(0)).abs().max()) < 5 * sigma * math.sqrt(2)


@BOTH
def test_no_document_grows(corruption: Corruption) -> None:
    tokens = rows([2] * 32, [3] * 21, [5] * 12)
    for seed in range(50):
        source = corruption(tokens, torch.arange(3) + 3 * seed, FACTS).source
        for row in range(3):
            before = torch.bincount(tokens.segments[row][tokens.segments[row] >= 0])
            after = torch.bincount(source.segments[row][source.segments[row] >= 0], minlength=len(before))
            assert bool((after <= before).all()) and bool((after > 0).all())


@BOTH
def test_the_entries_that_frame_a_document_stay(corruption: Corruption) -> None:
    tokens = rows([20, 12, 16], [4, 5, 39], framed=True)
    corrupted = corruption(tokens, SEEDS[:2], FACTS)
    for row, number in itertools.product(range(2), range(3)):
        read = words(corrupted.source, row, number)
        assert read[0] == START and read[-1] == END
        assert told(corrupted, row, number).count(END) == 1
        assert not {START, END} & set(corrupted.targets[row][corrupted.hidden[row]].tolist())


@BOTH
def test_the_decoder_is_given_each_target_s_forerunner(corruption: Corruption) -> None:
    corrupted = corruption(MIXED, SEEDS, FACTS)
    for row, number in every_document():
        written = words(corrupted.written, row, number)
        assert written == [END, *told(corrupted, row, number)][:-1] if written else not told(corrupted, row, number)
        mine = corrupted.written.segments[row] == number
        assert corrupted.written.positions[row][mine].tolist() == list(range(len(written)))


@BOTH
def test_a_row_is_corrupted_by_its_own_seed_alone(corruption: Corruption) -> None:
    together = corruption(MIXED, SEEDS, FACTS)
    for row in range(5):
        alone = corruption(Tokens(MIXED.ids[[row]], MIXED.segments[[row]], MIXED.positions[[row]]), SEEDS[[row]], FACTS)
        slots = alone.targets.shape[1]
        assert torch.equal(alone.targets[0], together.targets[row, :slots])
        assert torch.equal(alone.source.ids[0], together.source.ids[row, : alone.source.ids.shape[1]])
        assert bool((together.written.segments[row, slots:] < 0).all())


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
@pytest.mark.parametrize("mean", [1.0, 3.0, 7.0])
def test_there_are_sentinels_for_every_span(share: float, mean: float) -> None:
    corruption = Corruption("span_corruption", share, mean)
    for length in (2, 5, 24, 64, 257):
        spans = segmented_spans(documents(rows([length]), FACTS), torch.tensor([7]), share, mean)
        assert int(spans.real.sum()) <= corruption.sentinels(length)


@BOTH
def test_rows_of_tiny_documents_keep_their_shape_and_lose_their_end(corruption: Corruption) -> None:
    corrupted = corruption(rows([2] * 64), SEEDS[:1], FACTS)
    assert corrupted.targets.shape[1] <= 128 + 128 // 16 + 1
    complete = [number for number in range(64) if told(corrupted, 0, number)[-1:] == [END]]
    assert complete == list(range(len(complete))) and len(complete) >= 16


def test_a_document_of_one_token_is_never_taken_out() -> None:
    assert noise_tokens(documents(rows([1] * 8), FACTS), 0.5).sum() == 0
    assert BART(rows([1] * 8), SEEDS[:1], FACTS).hidden.sum() == 0
    assert (T5(rows([1] * 8), SEEDS[:1], FACTS).written.segments < 0).all()


@pytest.mark.parametrize(
    ("noise", "lost", "code"),
    [("infilling", "mask_id", "no_mask_token"), ("infilling", "sep_id", "no_end_token"),
     ("span_corruption", "sep_id", "no_end_token")],
)  # fmt: skip
def test_a_tokenizer_that_lacks_an_entry_is_refused(noise: Noise, lost: str, code: str) -> None:
    facts = {name: value for name, value in FACTS.items() if name != lost}
    with pytest.raises(SpecError) as error:
        Corruption(noise, 0.3, 3.0)(MIXED, SEEDS, facts)
    assert (error.value.code, error.value.param) == (code, "model")


def test_span_corruption_needs_no_mask_entry() -> None:
    facts = {name: value for name, value in FACTS.items() if name != "mask_id"}
    ids: Tensor = T5(MIXED, SEEDS, facts).source.ids
    assert int(ids.max()) >= SIZE
