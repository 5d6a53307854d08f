"""Heads that several objectives or tasks put on an encoder. Needs torch.

B rows, T token slots, K masked places a row, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_core.encoders.base import Encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.losses import vocabulary_loss
from ssl_core.nets import Nets
from ssl_core.places import vectors_by_place

if TYPE_CHECKING:
    from ssl_core.batch import Batch, Tokens
    from ssl_core.masks import MaskedTokens


class VocabularyHead(nn.Module):
    """BERT's transform before the tied output layer, whose table has `table` channels (0 = width), and its bias."""

    def __init__(self, width: int, vocabulary: int, table: int = 0) -> None:
        super().__init__()
        self.dense = nn.Linear(width, table or width)
        self.norm = nn.LayerNorm(table or width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.trunc_normal_(self.dense.weight, std=0.02, a=-0.06, b=0.06)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) from (..., D), or of the table's channels: what is multiplied with the embedding."""
        transformed: Tensor = self.norm(F.gelu(self.dense(hidden)))
        return transformed


@torch.no_grad()
def fills(nets: Nets, hidden: Tensor, masked: MaskedTokens) -> Tensor:
    """(B, K) the likeliest token at each hidden place. Arguments as for `masked_language_loss`."""
    head, encoder = nets.parts["vocabulary"], nets.encoder
    if not isinstance(head, VocabularyHead) or not isinstance(encoder, Transformer):
        raise TypeError("masked language modelling needs a Transformer and a VocabularyHead")
    rows = torch.arange(len(hidden), device=hidden.device)[:, None]
    return F.linear(head(hidden[rows, masked.places]), encoder.token.weight, head.bias).argmax(-1)


def masked_language_loss(nets: Nets, hidden: Tensor, masked: MaskedTokens) -> tuple[Tensor, Tensor]:
    """Loss and accuracy at the hidden places; `nets` holds a `VocabularyHead` under `vocabulary`.

    Args:
        nets: with a Transformer.
        hidden: (B, T, D) its output on `masked.tokens`.
        masked: what was hidden.
    """
    head, encoder = nets.parts["vocabulary"], nets.encoder
    if not isinstance(head, VocabularyHead) or not isinstance(encoder, Transformer):
        raise TypeError("masked language modelling needs a Transformer and a VocabularyHead")
    rows = torch.arange(len(hidden), device=hidden.device)[:, None]
    at_places = head(hidden[rows, masked.places].flatten(0, 1))
    return vocabulary_loss(
        at_places, encoder.token.weight, head.bias, masked.targets.flatten(), masked.weights.flatten()
    )


def next_token_loss(encoder: Encoder, hidden: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of telling each token from the output before it, where both are of one document.

    The output layer is the token embedding, without a bias, as in GPT-2. On a CPU the places without a target are left
    out; elsewhere, where finding them would wait for the device, they weigh nothing.

    Args:
        encoder: a Transformer, causal, as wide as its token table.
        hidden: (B, T, D) its output.
        tokens: what it read.
    """
    if not isinstance(encoder, Transformer):
        raise TypeError("next-token prediction needs a Transformer")
    real = (tokens.segments[:, 1:] >= 0) & (tokens.segments[:, 1:] == tokens.segments[:, :-1])
    before, targets, weights = hidden[:, :-1].flatten(0, 1), tokens.ids[:, 1:].flatten(), real.float().flatten()
    if hidden.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(real.all()):
        places = weights.nonzero().squeeze(1)
        before, targets, weights = before[places], targets[places], weights[places]
    return vocabulary_loss(before, encoder.token.weight, None, targets, weights)


class Classifier(nn.Module):
    """A linear layer on standardised features.

    Attributes:
        mean, scale: (D,) buffers, of the training split's features; 0 and 1 until `standardise`.
        class_weights: (C,) buffer, of each class in the loss.
    """

    mean: Tensor
    scale: Tensor
    class_weights: Tensor

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("class_weights", torch.ones(classes))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def standard(self, vectors: Tensor) -> Tensor:
        """(N, D) with mean 0 and deviation 1 in each dimension, over the training split."""
        return (vectors - self.mean) / self.scale

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, C) logits of (N, D) vectors of an encoder."""
        logits: Tensor = self.linear(self.dropout(self.standard(vectors)))
        return logits

    @torch.no_grad()
    def standardise(self, vectors: Tensor) -> None:
        """Take mean and deviation from (N, D) vectors; a dimension without deviation is left as it is."""
        deviation = vectors.double().std(0, correction=0)
        self.mean.copy_(vectors.double().mean(0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    @torch.no_grad()
    def assign(self, weight: Tensor, bias: Tensor) -> None:
        """Set the linear layer."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


class FrozenNets(Nets):
    """Nets whose encoder takes no gradient and stays in evaluation mode, whatever mode the rest is in."""

    def __init__(self, encoder: Encoder, **parts: nn.Module) -> None:
        super().__init__(encoder, **parts)
        self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenNets:
        """Set the parts' mode."""
        super().train(mode)
        self.encoder.eval()
        return self


class FinetunedNets(Nets):
    """Nets whose pretrained batch normalisation keeps its averages: a few labelled samples are too few to measure anew.

    Attributes:
        keep_averages: () bool buffer, so a resumed run does as it did before.
    """

    keep_averages: Tensor

    def __init__(self, encoder: Encoder, **parts: nn.Module) -> None:
        super().__init__(encoder, **parts)
        self.register_buffer("keep_averages", torch.tensor(False))

    def train(self, mode: bool = True) -> FinetunedNets:
        """Set the mode of everything but pretrained batch normalisation."""
        super().train(mode)
        if bool(self.keep_averages):
            for norm in batch_norms(self.encoder):
                norm.eval()
        return self

    def has_averages(self) -> bool:
        """Whether the encoder's batch normalisation, if it has any, has seen data."""
        return not any(norm.num_batches_tracked == 0 for norm in batch_norms(self.encoder))


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Every batch normalisation in it."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


def classifier_of(nets: Nets) -> Classifier:
    """The part named `classifier`."""
    head = nets.parts["classifier"]
    if not isinstance(head, Classifier):
        raise TypeError("these nets have no Classifier")
    return head


@torch.no_grad()
def vectors_and_targets(
    encoder: Encoder, batches: Iterable[Batch], name: str, places: int = 0
) -> tuple[Tensor, Tensor]:
    """(N, D) vectors in evaluation mode and (N, ...) targets of that name of all batches; `places` as
    `vectors_by_place` takes it."""
    training = encoder.training
    encoder.eval()
    pairs = [(vectors_by_place(encoder, batch.views[0], places).float(), batch.targets[name]) for batch in batches]
    encoder.train(training)
    return torch.cat([vectors for vectors, _ in pairs]), torch.cat([targets for _, targets in pairs])


@torch.no_grad()
def vectors_of(encoder: Encoder, batches: Iterable[Batch]) -> Tensor:
    """(N, D) vectors of all batches in evaluation mode."""
    training = encoder.training
    encoder.eval()
    vectors = torch.cat([encoder(batch.views[0]).float() for batch in batches])
    encoder.train(training)
    return vectors


@torch.no_grad()
def vectors_and_labels(encoder: Encoder, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """(N, D) vectors in evaluation mode and (N,) labels of all batches that have labels."""
    training = encoder.training
    encoder.eval()
    vectors, labels = [], []
    for batch in batches:
        if batch.labels is not None:
            vectors.append(encoder(batch.views[0]).float())
            labels.append(batch.labels)
    encoder.train(training)
    return torch.cat(vectors), torch.cat(labels)
