"""A linear layer on single tokens: their vectors, and the solution of it on a frozen encoder. Needs torch.

B rows, T token slots, N tagged tokens, D width of the vectors, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Batch, Inputs
from ssl_core.encoders.base import Encoder
from ssl_core.heads import Classifier
from ssl_core.logistic import solve

PENALTIES = (10.0, 100.0, 1000.0, 10_000.0)
USUAL_PENALTY = 100.0
MOST_VALUES = 60_000_000
"""Of the features that a probe is solved on; of more tokens an even share is taken."""
_HELD = 5


@dataclass(frozen=True)
class Tagged:
    """The tagged tokens of a split.

    Attributes:
        vectors: (N, D).
        labels: (N,) int64.
        rows: (N,) int64 the sample that each is of.
    """

    vectors: Tensor
    labels: Tensor
    rows: Tensor

    def standardised(self, head: Classifier) -> Tagged:
        """With vectors as the head's linear layer reads them."""
        return replace(self, vectors=head.standard(self.vectors))

    def where(self, chosen: Tensor) -> Tagged:
        """Those of a (N,) bool or an index."""
        return Tagged(self.vectors[chosen], self.labels[chosen], self.rows[chosen])


def outputs_of(encoder: Encoder, view: Inputs, every_layer: bool) -> Tensor:
    """(B, T, D) of each token: the encoder's output, or those of all its layers side by side, the last one normed."""
    if not every_layer:
        return encoder.encode(view)
    kept: list[Tensor] = []
    layers = encoder.get_submodule("layers")
    handles = [layer.register_forward_hook(lambda _, __, out: kept.append(out)) for layer in layers.children()]
    try:
        last = encoder.encode(view)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([*kept[:-1], last], dim=2)


def aligned(tags: Tensor, length: int, fill: int = -1) -> Tensor:
    """(B, length) of (B, L): cut, or filled up behind."""
    return F.pad(tags[:, :length], (0, max(0, length - tags.shape[1])), value=fill)


@torch.no_grad()
def tagged_features(encoder: Encoder, batches: Iterable[Batch], every_layer: bool) -> Tagged:
    """The tagged tokens of all batches in evaluation mode; of very many an even share."""
    training = encoder.training
    encoder.eval()
    parts: list[Tagged] = []
    samples = 0
    for batch in batches:
        hidden = outputs_of(encoder, batch.views[0], every_layer)
        tags = aligned(batch.targets["tags"], hidden.shape[1])
        rows, places = (tags >= 0).nonzero(as_tuple=True)
        parts.append(Tagged(hidden[rows, places].float(), tags[rows, places], rows + samples))
        samples += len(hidden)
    encoder.train(training)
    found = Tagged(*(torch.cat([getattr(part, name) for part in parts]) for name in ("vectors", "labels", "rows")))
    most = max(1, MOST_VALUES // found.vectors.shape[1])
    if len(found.labels) <= most:
        return found
    return found.where(torch.linspace(0, len(found.labels) - 1, most, device=found.rows.device).long())


def choose(found: Tagged, weights: Tensor) -> float:
    """The penalty of `PENALTIES` with the least log-loss on every fifth sample, solved on the others.

    Whole samples are held out: tokens of one text or chain are alike. `USUAL_PENALTY` where there are fewer than ten
    samples, or a side lacks tokens.
    """
    held = found.rows % _HELD == 0
    if int(found.rows.max()) < 2 * _HELD - 1 or not bool(held.any()) or bool(held.all()):
        return USUAL_PENALTY
    fitted, scored = found.where(~held), found.where(held)
    share = float((~held).double().mean())

    def loss(penalty: float) -> float:
        weight, bias = solve(fitted.vectors, fitted.labels, weights, penalty * share, iterations=60)
        logits = F.linear(scored.vectors, weight, bias)
        return float(F.cross_entropy(logits, scored.labels, weight=weights, reduction="sum"))

    return min(PENALTIES, key=loss)
