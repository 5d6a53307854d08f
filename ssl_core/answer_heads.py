"""What tasks answer with, on top of an encoder: nearest neighbours, and heads as exports see them. Needs torch.

B rows, T token slots, N remembered samples, D width, A answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoders.base import Encoder
from ssl_core.encoders.dual import Dual
from ssl_core.heads import Classifier, FinetunedNets, FrozenNets
from ssl_core.nets import Nets

TEMPERATURE = 0.07
"""By which cosines are divided: Wu et al. 2018, section 3.4."""


class Neighbours(nn.Module):
    """The answers of the nearest remembered samples by cosine, weighted by exp(cosine / 0.07): Wu et al. 2018,
    "Unsupervised feature learning via non-parametric instance discrimination", arXiv 1805.01978, section 3.4.

    Attributes:
        vectors: (N, D) buffer, of length 1.
        answers: (N, A) buffer: shares of classes, or numbers.
        weights: (A,) buffer, of each class; 1 where all count alike.
    """

    vectors: Tensor
    answers: Tensor
    weights: Tensor

    def __init__(self, count: int, width: int, answers: int) -> None:
        """`count`: neighbours that answer; all there are where fewer are remembered."""
        super().__init__()
        self.count = count
        self.register_buffer("vectors", torch.zeros(1, width))
        self.register_buffer("answers", torch.zeros(1, answers))
        self.register_buffer("weights", torch.ones(answers))

    @torch.no_grad()
    def remember(self, vectors: Tensor, answers: Tensor) -> None:
        """Take (N, D) vectors and their (N, A) answers."""
        self.vectors, self.answers = F.normalize(vectors.float(), dim=1), answers.to(vectors.device, torch.float32)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # How many samples are remembered is told by what is loaded.
        for name in ("vectors", "answers"):
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, getattr(self, name).new_zeros(state_dict[f"{prefix}{name}"].shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, A) of (B, D): the weighted mean of the neighbours' answers; of classes shares that add up to 1."""
        nearness, places = (F.normalize(vectors.float(), dim=1) @ self.vectors.T).topk(
            min(self.count, len(self.vectors)), dim=1
        )
        shares = (nearness / TEMPERATURE).softmax(1)
        found: Tensor = torch.einsum("bk,bka->ba", shares, self.answers[places]) * self.weights
        return found


def neighbours_of(nets: Nets) -> Neighbours:
    """The part named `neighbours`."""
    head = nets.parts["neighbours"]
    if not isinstance(head, Neighbours):
        raise TypeError("these nets remember no samples")
    return head


def class_nets(encoder: Encoder, classes: int, mode: str, neighbours: int, dropout: float) -> Nets:
    """An encoder with what calls classes in that mode of a task; `neighbours` and `dropout` are the task's."""
    if mode == "knn":
        return FrozenNets(encoder, neighbours=Neighbours(neighbours, encoder.embed_dim, classes))
    head = Classifier(encoder.embed_dim, classes, dropout)
    if mode == "linear_probe":
        return FrozenNets(encoder, classifier=head)
    if isinstance(encoder, Dual):
        encoder.pictures_only()
    return FinetunedNets(encoder, classifier=head)


class Head(NamedTuple):
    """A task's answers as a function of the encoder's outputs alone, for exports.

    Attributes:
        answers: from (B, D) vectors, or (B, T, D) outputs where `each_token`, to (..., A).
        output: what `answers` gives: `logits`, `probabilities` or `number`.
        problem: transformers' `problem_type`; empty where they have none.
        each_token: whether every token is answered for.
        linear: (A, D) and (A,) of the one linear layer that `answers` equals; None where it is more than that.
    """

    answers: nn.Module
    output: str
    problem: str = ""
    each_token: bool = False
    linear: tuple[Tensor, Tensor] | None = None


class Told(nn.Module):
    """A module's outputs, changed by a function of tensors."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self._change = inner, change

    def forward(self, vectors: Tensor) -> Tensor:
        """What `change` makes of it."""
        return self._change(self.inner(vectors))


def folded(head: Classifier) -> tuple[Tensor, Tensor]:
    """Weight (classes, D) and bias (classes,) of one linear layer that equals the head: W ((v - mean) / scale) + b."""
    weight = head.linear.weight.detach().double() / head.scale.double()
    bias = head.linear.bias.detach().double() - weight @ head.mean.double()
    return weight.float(), bias.float()
