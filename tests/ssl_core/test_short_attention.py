"""Attention over short rows is PyTorch's own, output and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.encoders import build_encoder
from ssl_core.layers import attend
from ssl_core.short_attention import LONGEST, attend_short, pays
from tests.ssl_core.datasets import TINY_TEXT


def rows(queries: int, keys: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Laid out as the trunk's: heads between tokens and channels."""
    generator = torch.Generator().manual_seed(queries)
    made = [torch.randn(3, length, 4, 8, generator=generator, dtype=dtype) for length in (queries, keys, keys)]
    q, k, v = (part.transpose(1, 2).requires_grad_() for part in made)
    return q, k, v


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 7), (5, 9), (65, 65)])
def test_output_and_gradients_are_those_of_the_kernel(queries: int, keys: int, dtype: torch.dtype, rtol: float) -> None:
    q, k, v = rows(queries, keys, dtype)
    ours, usual = attend_short(q, k, v), F.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(ours, usual, rtol=rtol, atol=rtol / 100)
    given = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (q, k, v), given), torch.autograd.grad(usual, (q, k, v), given), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=rtol, atol=rtol / 100)


def test_it_is_taken_for_short_rows_with_a_gradient_in_full_precision_alone() -> None:
    q, k, _ = rows(4, 4, torch.float32)
    assert pays(q, k)
    assert not pays(q.bfloat16(), k.bfloat16())
    assert not pays(q.detach(), k.detach())
    assert not pays(*rows(4, LONGEST + 1, torch.float32)[:2])
    with torch.no_grad():
        assert not pays(q, k)


def test_attention_without_a_mask_goes_through_it() -> None:
    q, k, v = rows(6, 6, torch.float32)
    assert "_Short" in type(attend(q, k, v, None, False, 0.0).grad_fn).__name__
    assert "_Short" not in type(attend(q, k, v, None, True, 0.0).grad_fn).__name__


def test_a_trunk_with_rotary_positions_trains_in_bf16_on_short_rows_of_one_length() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate(TINY_TEXT), {"vocab_size": 40, "max_length": 32})
    ids = torch.randint(4, 40, (3, 12))
    rows = Tokens(ids, torch.zeros_like(ids).int(), torch.arange(12).expand(3, -1))
    found = []
    for precise in (True, False):
        encoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            loss = encoder.eval()(rows).float().square().mean()
        loss.backward()
        found.append(encoder.get_parameter("layers.0.attention.out.weight").grad)
    assert torch.nn.functional.cosine_similarity(found[0].flatten(), found[1].flatten(), dim=0) > 0.99
