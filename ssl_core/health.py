"""Is the representation alive? Numbers on features of held-out plain views. Needs torch."""

from __future__ import annotations

import torch
from torch import Tensor

COLLAPSED_SHARE = 0.02
"""Effective rank over min(N, D) below which a run is called collapsed."""


def effective_rank(vectors: Tensor) -> float:
    """exp of the entropy of the singular values, each as a share of their sum: RankMe, Garrido et al. 2023,
    arXiv 2210.02885, equation 2. From 1 (all on one line) to min(N, D).

    Args:
        vectors: (N, D) features.
    """
    values = torch.linalg.svdvals(vectors.double())
    shares = values / values.sum().clamp_min(1e-300) + 1e-12
    return float(torch.exp(-(shares * shares.log()).sum()))


def spread(vectors: Tensor) -> dict[str, float]:
    """Effective rank, the same as a share of what (N, D) allows, and the mean spread of the dimensions."""
    rank = effective_rank(vectors)
    return {
        "health/effective_rank": rank,
        "health/effective_rank_share": rank / min(vectors.shape),
        "health/spread_mean": float(_spreads(vectors).mean()),
    }


def health(vectors: Tensor) -> dict[str, float]:
    """Series under `health/`: effective rank, the same as a share of what (N, D) allows, the spread of each dimension
    of the L2-normalised features (Chen and He 2021, SimSiam, arXiv 2011.10566: 1/sqrt(D) when evenly spread, 0 on
    collapse), here times sqrt(D), so 1 is even, and uniformity."""
    spreads = _spreads(vectors)
    return {
        **spread(vectors),
        "health/spread_min": float(spreads.min()),
        "health/dead_dimensions": float((spreads < 0.01).sum()),
        "health/uniformity": uniformity(vectors),
    }


def _spreads(vectors: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    spreads: Tensor = unit.std(0) * vectors.shape[1] ** 0.5
    return spreads


def uniformity(vectors: Tensor) -> float:
    """log of the mean over pairs of exp(-2 |x - y|^2) of normalised features, 0 on collapse and the lower the more
    evenly they cover the sphere: Wang and Isola 2020, https://arxiv.org/abs/2005.10242, equation 7 with t = 2.

    Args:
        vectors: (N, D), N at least 2.
    """
    distances = torch.nn.functional.pdist(torch.nn.functional.normalize(vectors.double(), dim=1))
    return float((-2 * distances.square()).exp().mean().log())


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of two views of a sample, normalised features (Wang and Isola 2020, equation 6, alpha 2).

    Args:
        first, second: (N, D), row i of both of the same sample.
    """
    one, other = (torch.nn.functional.normalize(vectors.double(), dim=1) for vectors in (first, second))
    return float((one - other).square().sum(1).mean())


def warnings(values: dict[str, float]) -> dict[str, str]:
    """A sentence for the user where the numbers say collapse."""
    share, spread = values.get("health/effective_rank_share", 1.0), values.get("health/spread_mean", 1.0)
    if share >= COLLAPSED_SHARE and spread >= 0.05:
        return {}
    rank = values.get("health/effective_rank", 0.0)
    text = (
        f"the representation is collapsing: effective rank {rank:.1f}, mean spread {spread:.3f} (1 is even); "
        "lower optimizer.learning_rate, use a larger batch_size, or check the data for near-identical rows"
    )
    return {"collapse": text}
