"""Soft assignment of vectors to learned prototypes, as DINO uses it. Needs torch.

Caron et al. 2021, https://arxiv.org/abs/2104.14294. N vectors, D width, K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core import distributed
from ssl_core.losses import cosines
from ssl_core.nets import Nets


class PrototypeHead(nn.Module):
    """Three linear layers with GELU, then the cosine with each prototype: appendix C of the paper.

    The prototypes have length 1, as in the authors' code (`norm_last_layer`), and their direction takes no gradient
    while the head is shut.

    Attributes:
        prototypes: (K, `bottleneck`).
        open: () float32 buffer, 1 where the prototypes learn, 0 where they rest.
    """

    open: Tensor

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))
        self.register_buffer("open", torch.ones(()))
        for part in self.layers:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) cosines of (N, D), in float32 or better."""
        resting = self.prototypes.detach()
        return cosines(self.layers(x), resting + self.open * (self.prototypes - resting))


class Centre(nn.Module):
    """A moving average of the teacher's outputs, taken off them so that no prototype wins everything: equation 4.

    Attributes:
        mean: (1, K) float32 buffer, the same in every process.
    """

    mean: Tensor

    def __init__(self, prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(1, prototypes))

    @torch.no_grad()
    def assign(self, outputs: Tensor, temperature: Tensor | float) -> Tensor:
        """(..., K) probabilities of a teacher's outputs (..., K), sharpened by `temperature`.

        In training mode the average moves afterwards, by the outputs of all processes.
        """
        assigned = torch.softmax((outputs - self.mean) / temperature, dim=-1)
        if self.training:
            seen = distributed.mean(outputs.flatten(0, -2).mean(0, keepdim=True))
            self.mean.lerp_(seen, 1.0 - self.momentum)
        return assigned


def head_of(nets: Nets) -> PrototypeHead:
    """The part named `head`."""
    head = nets.parts["head"]
    if not isinstance(head, PrototypeHead):
        raise TypeError("these nets have no PrototypeHead")
    return head


def centre_of(nets: Nets) -> Centre:
    """The part named `centre`."""
    centre = nets.parts["centre"]
    if not isinstance(centre, Centre):
        raise TypeError("these nets have no Centre")
    return centre
