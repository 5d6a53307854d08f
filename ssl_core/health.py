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


def health(vectors: Tensor) -> dict[str, float]:
    """Series under `health/`: effective rank, the same as a share of what (N, D) allows, and the spread of each
    dimension of the L2-normalised features (Chen and He 2021, SimSiam, arXiv 2011.10566: 1/sqrt(D) when evenly
    spread, 0 on collapse), here times sqrt(D), so 1 is even."""
    spread = torch.nn.functional.normalize(vectors.double(), dim=1).std(0) * vectors.shape[1] ** 0.5
    rank = effective_rank(vectors)
    return {
        "health/effective_rank": rank,
        "health/effective_rank_share": rank / min(vectors.shape),
        "health/spread_mean": float(spread.mean()),
        "health/spread_min": float(spread.min()),
        "health/dead_dimensions": float((spread < 0.01).sum()),
    }


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
