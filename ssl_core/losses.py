"""Losses with a published formula: tensors in, scalar out. Needs torch.

N samples, D dimensions, M masked places, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssl_core.cross_entropy import cross_entropy
from ssl_core.distributed import gathered, mean

_CHUNK_VALUES = 2**26  # logits alive at once: 256 MB in float32


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) cosines of (N, D) and (M, D), in float32 or better also under autocast.

    A cosine in bf16 is off by up to 0.004, which a temperature of 0.05 makes 0.08 of a logit.
    """
    exact = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        return F.normalize(first.to(exact), dim=1) @ F.normalize(second.to(exact), dim=1).T


def info_nce(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Each vector finds its partner among the other side's: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748.

    The mean of both directions, as in CLIP (Radford et al. 2021). With several processes, over the rows of all.

    Args:
        first, second: (N, D); row i of one is the positive of row i of the other.
        temperature: divides the cosine.

    Returns:
        The loss, and the share of vectors whose partner scores highest (detached).
    """
    logits = cosines(gathered(first), gathered(second)) / temperature
    target = torch.arange(len(logits), device=logits.device)
    loss = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
    with torch.no_grad():
        found = 0.5 * ((logits.argmax(1) == target).float().mean() + (logits.argmax(0) == target).float().mean())
    return loss, found


def simcse(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Each vector finds its second reading: Gao et al. 2021, https://arxiv.org/abs/2104.08821, equation 4.

    One direction alone, unlike `info_nce`. With several processes, over the rows of all. Arguments, results: as there.
    """
    logits = cosines(gathered(first), gathered(second)) / temperature
    target = torch.arange(len(logits), device=logits.device)
    found = (logits.detach().argmax(1) == target).float().mean()
    return F.cross_entropy(logits, target), found


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross-entropy of SimCLR: Chen et al. 2020, https://arxiv.org/abs/2002.05709,
    equation 1, mean over all 2N vectors. All 2(N - 1) vectors of other samples are the negatives of a vector; with
    several processes those of all of them.

    Args:
        first, second: (N, D), two views of the same N samples.
        temperature: divides the cosine.

    Returns:
        The loss, and the share of vectors whose partner scores highest (detached).
    """
    first, second = gathered(first), gathered(second)
    count = len(first)
    vectors = torch.cat([first, second])
    logits = cosines(vectors, vectors) / temperature
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=logits.device), float("-inf"))
    target = torch.arange(2 * count, device=logits.device).roll(count)
    with torch.no_grad():
        found = (logits.argmax(1) == target).float().mean()
    return F.cross_entropy(logits, target), found


def paired_cosines(first: Tensor, second: Tensor) -> Tensor:
    """(N,) cosine of row i of both (N, D), in float32 or better also under autocast."""
    exact = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        return (F.normalize(first.to(exact), dim=1) * F.normalize(second.to(exact), dim=1)).sum(1)


def vicreg_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance of VICReg: Bardes et al. 2021, https://arxiv.org/abs/2105.04906, section 4.1.

    As in the authors' code, the squared distance is the mean over the dimensions too, and the variance term the mean of
    both sides. In float32 or better also under autocast; with several processes, over the rows of all.

    Args:
        first, second: (N, D), two views of the same N samples, N at least 2.
    """
    exact = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        first, second = gathered(first.to(exact)), gathered(second.to(exact))
        sides = [_spread_and_correlation(side) for side in (first, second)]
        return F.mse_loss(first, second), (sides[0][0] + sides[1][0]) / 2, sides[0][1] + sides[1][1]


def _spread_and_correlation(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The hinge on each dimension's deviation, and the squared covariances off the diagonal, over D."""
    count, width = vectors.shape
    centred = vectors - vectors.mean(0)
    variances = centred.square().sum(0) / (count - 1)
    hinge = F.relu(1 - (variances + 1e-4).sqrt()).mean()
    # |X'X| = |XX'| in the Frobenius norm, and the smaller of the two is the cheaper one.
    gram = centred @ centred.T if count < width else centred.T @ centred
    off_diagonal = gram.square().sum() / (count - 1) ** 2 - variances.square().sum()
    return hinge, off_diagonal / width


def multi_crop_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of DINO: Caron et al. 2021, https://arxiv.org/abs/2104.14294, equation 3.

    Every crop of the student meets every target but that of the same crop; the mean of all pairs. The sums over pairs
    are taken before the products, so its cost does not grow with the number of pairs.

    Args:
        student: (V, N, K) logits of V crops of N samples, the targets' crops first.
        targets: (G, N, K) probabilities of G crops, without gradient.
        temperature: divides the student's logits.
    """
    crops, seen = len(student), len(targets)
    logits = student / temperature
    norms = logits.logsumexp(-1)
    everyone = seen * norms.sum(0) - (targets.sum(0) * logits.sum(0)).sum(-1)
    itself = (norms[:seen] - (targets * logits[:seen]).sum(-1)).sum(0)
    return (everyone - itself).mean() / (seen * crops - seen)


def entropy(probabilities: Tensor) -> Tensor:
    """(...,) entropy in nats of (..., K) probabilities."""
    each: Tensor = torch.special.entr(probabilities)
    return each.sum(-1)


def class_loss(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, each sample weighed by its class, as `torch.nn.functional.cross_entropy` of the whole batch:
    also where processes that share the batch have different weights in all.

    Args:
        logits: (N, C).
        labels: (N,) int64; -1 is left out.
        weights: (C,) of each class.
        smoothing: of the labels, 0 to 1.
    """
    total = F.cross_entropy(
        logits, labels, weight=weights, ignore_index=-1, label_smoothing=smoothing, reduction="sum"
    )
    counted = torch.where(labels >= 0, weights[labels.clamp(min=0)], 0.0).sum()
    return total / mean(counted).clamp(min=1e-9)


def vocabulary_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over a vocabulary, in chunks so that few logits are alive at once.

    Args:
        hidden: (M, D).
        weight, bias: (V, D) and (V,), of the output layer; None = no bias.
        targets: (M,) int64.
        weights: (M,) of each place in the mean; the sum must be positive, else the loss is zero.

    Returns:
        The loss, and the weighted share of places whose target scores highest (detached).
    """
    losses, hits = vocabulary_losses(hidden, weight, bias, targets)
    # Processes have different numbers of places: each divides by the mean number, so that their mean is that of all.
    total = mean(weights.sum()).clamp(min=1e-9)
    return (losses * weights).sum() / total, (hits * weights).sum() / total


def vocabulary_losses(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(M,) cross-entropy of each place, and (M,) 1 where its target scores highest (detached); as `vocabulary_loss`."""
    rows = max(1, _CHUNK_VALUES // len(weight))
    if len(hidden) <= rows:
        return _chunk(hidden, weight, bias, targets)
    parts = [
        checkpoint(
            _chunk, hidden[start : start + rows], weight, bias, targets[start : start + rows], use_reentrant=False
        )
        for start in range(0, len(hidden), rows)
    ]
    return torch.cat([losses for losses, _ in parts]), torch.cat([hits for _, hits in parts])


def _chunk(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropies and hits."""
    return cross_entropy(F.linear(hidden, weight, bias), targets)
