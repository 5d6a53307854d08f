"""How many of the likeliest contacts of a chain are contacts. Needs torch.

N chains, L residues in a chain. Pairs are told apart by their separation |i - j| in the chain, as in CASP: the nearer,
the easier.
"""

from __future__ import annotations

import torch
from torch import Tensor

SEPARATIONS = (6, 12, 24)
SHARES = (1, 2, 5)
"""The L, L / 2 and L / 5 likeliest pairs are judged."""


def likeliest(logits: Tensor, separation: int) -> tuple[Tensor, Tensor]:
    """The L likeliest pairs of a chain, best first, or all there are.

    Args:
        logits: (L, L) symmetric.
        separation: least |i - j| of a pair.

    Returns:
        (k, 2) int64, the first residue before the second, and (k,) their logits.
    """
    length = len(logits)
    first, second = torch.triu_indices(length, length, separation, device=logits.device)
    values, order = logits[first, second].sort(descending=True, stable=True)
    order = order[:length]
    return torch.stack([first[order], second[order]], 1), values[:length]


def hits(pairs: Tensor, contacts: Tensor, length: int) -> Tensor:
    """(k,) bool: which of (k, 2) pairs are among (P, 2) contacts of a chain of so many residues; -1 is no pair."""
    def number(each: Tensor) -> Tensor:
        return torch.where(each[:, 0] >= 0, each[:, 0] * length + each[:, 1], -1)

    found: Tensor = torch.isin(number(pairs), number(contacts[contacts[:, 0] >= 0])) & (pairs[:, 0] >= 0)
    return found


def precision(right: Tensor, length: int, share: int) -> float:
    """Of the length / share likeliest pairs, at least one, those that are contacts; NaN where there is no pair.

    Args:
        right: (k,) bool of pairs, the likeliest first.
        length: residues of the chain.
        share: 1, 2 or 5.
    """
    judged = right[: max(1, length // share)]
    return float(judged.double().mean()) if len(judged) else float("nan")
