"""Cross-entropy in few passes is PyTorch's own, loss and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.cross_entropy import cross_entropy


def logits(dtype: torch.dtype, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = (scale * torch.randn(12, 50, generator=generator)).to(dtype)
    return made.requires_grad_(), torch.randint(0, 50, (12,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_loss_and_gradient_are_pytorch_s(dtype: torch.dtype, rtol: float, smoothing: float) -> None:
    given, targets = logits(dtype)
    weights = torch.linspace(-1, 2, 12, dtype=torch.float64)
    ours, _ = cross_entropy(given, targets, smoothing)
    (mine,) = torch.autograd.grad((ours.double() * weights).sum(), given)
    exact = given.detach().double().requires_grad_()
    theirs = F.cross_entropy(exact, targets, reduction="none", label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad((theirs * weights).sum(), exact)
    assert ours.dtype == torch.promote_types(dtype, torch.float32) and mine.dtype == dtype
    assert torch.allclose(ours.double(), theirs, rtol=min(rtol, 1e-5), atol=min(rtol, 1e-5))
    assert torch.allclose(mine.double(), gradient, rtol=rtol, atol=rtol / 10)


def test_hits_are_where_the_target_scores_highest_and_have_no_gradient() -> None:
    given, targets = logits(torch.float32)
    targets[:4] = given[:4].argmax(1)
    _, hits = cross_entropy(given, targets)
    assert hits.tolist() == (given.argmax(1) == targets).float().tolist() and hits[:4].tolist() == [1.0] * 4
    assert not hits.requires_grad


def test_large_logits_stay_finite() -> None:
    given, targets = logits(torch.float32, scale=1e4)
    ours, _ = cross_entropy(given, targets, 0.1)
    (mine,) = torch.autograd.grad(ours.sum(), given)
    assert torch.isfinite(ours).all() and torch.isfinite(mine).all()


def test_a_second_gradient_of_one_pass_is_an_error_and_no_wrong_number() -> None:
    given, targets = logits(torch.float32)
    loss = cross_entropy(given, targets)[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
