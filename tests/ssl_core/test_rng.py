"""Stateless random numbers."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_core.rng import bits, mix, normal, randint, sample_seeds, uniform

SEEDS = torch.arange(1000)


def test_the_hash_is_splitmix64() -> None:
    # First outputs of the reference generator for seed 1234567 (Vigna, splitmix64.c).
    from ssl_core.rng import _GOLDEN, _finalise

    state = torch.tensor([1234567]) + _GOLDEN * torch.arange(1, 4)
    assert [int(x) % 2**64 for x in _finalise(state)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_uniform_numbers_fill_the_interval_evenly() -> None:
    draws = uniform(SEEDS, 1000, salt=3).flatten().double()
    assert draws.min() >= 0 and draws.max() < 1
    counts = torch.histc(draws, bins=100, min=0, max=1)
    chi_square = ((counts - 10_000) ** 2 / 10_000).sum()
    # Mean 99, standard deviation sqrt(198): five of them each way.
    assert abs(chi_square - 99) < 5 * math.sqrt(198)


@pytest.mark.parametrize("axis", [0, 1])
def test_neighbours_are_not_correlated(axis: int) -> None:
    draws = uniform(SEEDS, 1000, salt=0).double() - 0.5
    shifted = draws.roll(1, axis)
    correlation = (draws * shifted).mean() * 12
    assert abs(correlation) < 5 / 1000


def test_other_salts_give_independent_numbers() -> None:
    first, second = (uniform(SEEDS, 1000, salt).double() - 0.5 for salt in (0, 1))
    assert abs((first * second).mean() * 12) < 5 / 1000


def test_every_bit_is_fair() -> None:
    words = bits(SEEDS, 100, salt=7).flatten()
    shares = torch.stack([((words >> place) & 1).double().mean() for place in range(64)])
    assert (shares - 0.5).abs().max() < 5 * 0.5 / math.sqrt(len(words))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    whole = uniform(SEEDS, 8, salt=1)
    assert torch.equal(uniform(SEEDS[17:20], 8, salt=1), whole[17:20])
    assert torch.equal(uniform(SEEDS, 3, salt=1), whole[:, :3])


def test_seeds_of_a_step_are_all_different() -> None:
    seeds = torch.cat([sample_seeds(run, step, SEEDS) for run in range(3) for step in range(30)])
    assert len(seeds.unique()) == len(seeds)


def test_mixing_takes_a_tensor_of_salts() -> None:
    salts = torch.tensor([4, 9])
    assert torch.equal(mix(torch.tensor([5, 5]), salts), torch.cat([mix(torch.tensor([5]), s) for s in (4, 9)]))


def test_integers_cover_their_range_evenly() -> None:
    draws = randint(SEEDS, 700, salt=2, high=7).flatten()
    counts = torch.bincount(draws, minlength=7).double()
    assert len(counts) == 7
    assert ((counts - 100_000) ** 2 / 100_000).sum() < 30


@pytest.mark.parametrize("high", [0, -1, 2**31 + 1])
def test_an_impossible_range_is_refused(high: int) -> None:
    with pytest.raises(ValueError, match="high must be"):
        randint(SEEDS, 1, 0, high)


def test_normal_numbers_have_the_moments_of_a_normal() -> None:
    draws = normal(SEEDS, 1000, salt=5).flatten().double()
    moments = [draws.pow(k).mean().item() for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_numbers_are_the_same_on_a_gpu() -> None:
    assert torch.equal(uniform(SEEDS, 100, 1), uniform(SEEDS.cuda(), 100, 1).cpu())
