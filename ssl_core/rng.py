"""Random numbers without state: a number is a hash of (seed, salt, place). Needs torch.

A view or a mask drawn here is the same whatever ran before it, however the batch is split, on CPU and GPU alike, so a
resume needs no generator state. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators"; constants of Stafford's variant 13), in int64 arithmetic that wraps.
Not for secrets.

B samples, n numbers for each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(bits: int) -> int:
    """The int64 with the bits of an unsigned 64-bit constant."""
    return bits - 2**64 if bits >= 2**63 else bits


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, count: int) -> Tensor:
    """Logical shift; torch's own keeps the sign."""
    return (x >> count) & ((1 << (64 - count)) - 1)


def _finalise(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


def mix(seeds: Tensor, salt: int | Tensor) -> Tensor:
    """New seeds from old ones, as good as independent for every other salt.

    Args:
        seeds: any shape, int64.
        salt: what they are for; a tensor broadcasts against `seeds`.
    """
    return _finalise(_finalise(seeds + _GOLDEN) + (salt + torch.zeros_like(seeds) + 1) * _GOLDEN)


def sample_seeds(run_seed: int, step: int, indices: Tensor) -> Tensor:
    """(B,) int64 seeds of the samples of a step: a function of (run seed, step, sample) and of nothing else.

    Args:
        run_seed, step: non-negative.
        indices: (B,) int64 sample numbers.
    """
    run = torch.full_like(indices, run_seed)
    return mix(mix(run, step), indices)


def bits(seeds: Tensor, n: int, salt: int) -> Tensor:
    """(B, n) int64, all 64 bits uniform."""
    places = torch.arange(1, n + 1, device=seeds.device, dtype=torch.int64) * _GOLDEN
    return _finalise(mix(seeds, salt)[:, None] + places)


def uniform(seeds: Tensor, n: int, salt: int) -> Tensor:
    """(B, n) float32 in [0, 1), multiples of 2^-24.

    Args:
        seeds: (B,) int64.
        n: numbers for each seed; the first k of n are the same for every n >= k.
        salt: tells the uses of one seed apart.
    """
    return _shift_right(bits(seeds, n, salt), 40).to(torch.float32) * 2.0**-24


def randint(seeds: Tensor, n: int, salt: int, high: int) -> Tensor:
    """(B, n) int64 in [0, high), high at most 2^31; the bias of a value is below high / 2^32."""
    if not 0 < high <= 2**31:
        raise ValueError(f"high must be from 1 to 2^31, not {high}")
    return (_shift_right(bits(seeds, n, salt), 32) * high) >> 32


def normal(seeds: Tensor, n: int, salt: int) -> Tensor:
    """(B, n) float32, standard normal (Box and Muller 1958). Equal on CPU and GPU up to rounding of log and cos."""
    draws = uniform(seeds, 2 * n, salt)
    radius = torch.sqrt(-2.0 * torch.log(1.0 - draws[:, :n]))
    return radius * torch.cos(2.0 * math.pi * draws[:, n:])
