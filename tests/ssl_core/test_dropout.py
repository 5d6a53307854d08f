"""Dropout with a quick mask: as PyTorch's, but for which elements it happens to drop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ssl_core.dropout import Dropout, drop, kept
from ssl_core.layers import attend


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_the_one_asked_for(p: float) -> None:
    torch.manual_seed(0)
    zeros = float((drop(torch.ones(1_000_003), p) == 0).float().mean())
    assert zeros == pytest.approx(p, abs=5 * (p * (1 - p) / 1_000_003) ** 0.5 + 1 / 2**17)


def test_what_is_kept_grows_so_that_the_mean_stays() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(1001), 0.1)
    assert torch.allclose(dropped[dropped > 0], torch.tensor(1 / 0.9), rtol=1e-4)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    mask = kept(torch.Size([1_000_000]), 2**15).float() - 0.5
    for lag in (1, 2, 3, 4, 5, 8):
        assert abs(float((mask[lag:] * mask[:-lag]).mean())) < 5 * 0.25 / 1000


def test_the_gradient_is_zero_where_a_value_was_dropped_and_the_factor_elsewhere() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 7, 3, requires_grad=True)
    dropped = drop(x, 0.3)
    (gradient,) = torch.autograd.grad(dropped, x, torch.ones_like(dropped))
    assert torch.allclose(gradient * x, dropped)
    assert (gradient == 0).any()


def test_the_same_generator_state_drops_the_same_elements() -> None:
    x = torch.randn(64, 33)
    torch.manual_seed(5)
    first = drop(x, 0.2)
    torch.manual_seed(5)
    assert torch.equal(first, drop(x, 0.2))
    assert not torch.equal(first, drop(x, 0.2))


def test_an_evaluated_module_changes_nothing_and_draws_nothing() -> None:
    before = torch.get_rng_state()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert torch.equal(before, torch.get_rng_state())


def test_bf16_stays_bf16_and_strides_do_not_matter() -> None:
    torch.manual_seed(0)
    assert drop(torch.ones(4, 4, dtype=torch.bfloat16), 0.5).dtype == torch.bfloat16
    turned = torch.randn(6, 5, 4).transpose(0, 2)
    dropped = drop(turned, 0.5)
    assert torch.allclose(dropped[dropped != 0], 2 * turned[dropped != 0])


@pytest.mark.parametrize("sight", ["all", "causal", "mask", "groups"])
def test_attention_that_drops_is_the_usual_one_where_nothing_falls_out(sight: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    shared = 2 if sight == "groups" else 4
    k = torch.randn(2, shared, 6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, shared, 6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = None
    if sight == "mask":
        mask = (torch.arange(6)[:, None] // 3 == torch.arange(6) // 3).expand(2, 1, 6, 6)
    # So small that no draw of 16 bits falls under it, but not zero, so the dropping path is taken.
    ours = attend(q, k, v, mask, sight == "causal", 1e-9)
    usual = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=sight == "causal", enable_gqa=sight == "groups"
    )
    given = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (q, k, v), given), torch.autograd.grad(usual, (q, k, v), given), strict=True
    ):
        assert torch.allclose(mine, theirs)
    assert torch.allclose(ours, usual)


def test_attention_drops_weights_and_keeps_their_mean() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 16, 8)
    v = torch.eye(16)[None, None]
    seen = torch.stack([attend(q, k, v, None, False, 0.25) for _ in range(4000)])
    usual = F.scaled_dot_product_attention(q, k, v)
    assert (seen == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert torch.allclose(seen.mean(0), usual, atol=0.02)
