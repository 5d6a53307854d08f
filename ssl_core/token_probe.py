"""A linear layer on single tokens: their vectors, and the solution of it on a frozen encoder. Needs torch.

B rows, T token slots, N tagged tokens, D width of the vectors, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Batch, Inputs, Tokens
from ssl_core.encoders.base import Encoder
from ssl_core.heads import Classifier, classifier_of
from ssl_core.logistic import solve
from ssl_core.nets import Nets

PENALTIES = (10.0, 100.0, 1000.0, 10_000.0)
USUAL_PENALTY = 100.0
MOST_VALUES = 60_000_000
"""Of the features that a probe is solved on; of more tokens an even share is taken."""
AT_ONCE = 2**25
"""Values of vectors with their neighbours that are made at a time."""
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


@dataclass(frozen=True)
class Reading:
    """What of an encoder is a token's vector.

    Attributes:
        every_layer: the outputs of all layers side by side, the last one normed; else the encoder's output.
        context: neighbours on either side whose vectors stand beside it, zeros beyond the document's ends.
    """

    every_layer: bool
    context: int

    def width(self, encoder: Encoder) -> int:
        """D."""
        return encoder.embed_dim * (encoder.spec.depth if self.every_layer else 1) * (2 * self.context + 1)

    def pieces(self, encoder: Encoder, view: Inputs) -> Iterator[Tensor]:
        """(b, T, D) some rows at a time, which together are the B rows of the view."""
        hidden = outputs_of(encoder, view, self.every_layer)
        if self.context == 0:
            yield hidden
            return
        if not isinstance(view, Tokens):
            raise TypeError("neighbours are of tokens")
        hidden = hidden.masked_fill(view.segments[:, :, None] < 0, 0.0)
        rows = max(1, AT_ONCE // (hidden.shape[1] * self.width(encoder)))
        for start in range(0, len(hidden), rows):
            padded = F.pad(hidden[start : start + rows], (0, 0, self.context, self.context))
            shifts = range(2 * self.context + 1)
            yield torch.cat([padded[:, shift : shift + hidden.shape[1]] for shift in shifts], dim=2)

    def logits(self, nets: Nets, view: Inputs) -> Tensor:
        """(B, T, C) of the part named `classifier`."""
        head = classifier_of(nets)
        return torch.cat([head(piece) for piece in self.pieces(nets.encoder, view)])


def outputs_of(encoder: Encoder, view: Inputs, every_layer: bool) -> Tensor:
    """(B, T, width) of each token: the encoder's output, or those of all its layers side by side, the last normed."""
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
def tagged_features(encoder: Encoder, batches: Iterable[Batch], reading: Reading) -> Tagged:
    """The tagged tokens of all batches in evaluation mode; of very many an even share."""
    training = encoder.training
    encoder.eval()
    parts: list[Tagged] = []
    samples = 0
    for batch in batches:
        first = 0
        for hidden in reading.pieces(encoder, batch.views[0]):
            tags = aligned(batch.targets["tags"][first : first + len(hidden)], hidden.shape[1])
            rows, places = (tags >= 0).nonzero(as_tuple=True)
            parts.append(Tagged(hidden[rows, places].float(), tags[rows, places], rows + samples + first))
            first += len(hidden)
        samples += first
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
