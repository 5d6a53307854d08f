"""Low-rank adapters on the layers of an encoder, and their merging into its weights. Needs torch.

Hu et al. 2021, https://arxiv.org/abs/2106.09685, sections 4.1 and 4.2. The paper adapts queries, keys, values and
output each by itself, and so do these, though one matrix computes queries, keys and values here; the two halves of a
gated feed-forward likewise.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoders.base import Encoder
from ssl_core.encoders.dual import Dual
from ssl_core.layers import Layer
from ssl_core.low_rank import LowRank


class Adapted(nn.Linear):
    """A linear layer whose own weights stay, with a low-rank matrix added to each block of its outputs.

    Its weight and bias keep their names in the state. G blocks, R the rank, I channels in, O out.

    Attributes:
        adapter_in: (G R, I), every block's A below the one before.
        adapter_out: (O, R), every block's B below the one before; 0 at the start, so nothing changes at first.
    """

    def __init__(self, layer: nn.Linear, blocks: tuple[int, ...], low: LowRank) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.blocks, self.rank, self.strength = blocks, low.rank, low.alpha / low.rank
        shape = len(blocks) * low.rank, layer.in_features
        self.adapter_in = nn.Parameter(layer.weight.new_empty(shape))
        self.adapter_out = nn.Parameter(layer.weight.new_zeros(layer.out_features, low.rank))
        # As in the authors' code, https://github.com/microsoft/LoRA: a linear layer's usual start.
        nn.init.kaiming_uniform_(self.adapter_in, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., O) from (..., I)."""
        narrow = torch.split(F.linear(x, self.adapter_in), self.rank, -1)
        added = [F.linear(*pair) for pair in zip(narrow, torch.split(self.adapter_out, list(self.blocks)), strict=True)]
        return F.linear(x, self.weight, self.bias) + self.strength * torch.cat(added, -1)

    def merged(self) -> nn.Linear:
        """One layer of the same outputs: W + alpha / rank B A in its weight, which is changed in place."""
        outs, ins = torch.split(self.adapter_out, list(self.blocks)), torch.split(self.adapter_in, self.rank)
        with torch.no_grad():
            added = torch.cat([after.double() @ before.double() for after, before in zip(outs, ins, strict=True)])
            self.weight.copy_(self.weight.double() + self.strength * added)
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


def adapt(encoder: Encoder, low: LowRank) -> None:
    """Freeze the encoder and put adapters on its layers, in place; of pairs on the tower for pictures.

    Draws from torch's generator. What is not a layer (embeddings, norms, pooling) stays frozen and as it is.
    """
    encoder.requires_grad_(False)
    trunk = encoder.image if isinstance(encoder, Dual) else encoder
    for layer in [part for part in trunk.modules() if isinstance(part, Layer)]:
        attention, raising = layer.attention, layer.feed_forward
        inner, hidden = attention.shared * attention.head_dim, raising.down.in_features
        attention.qkv = Adapted(attention.qkv, (attention.heads * attention.head_dim, inner, inner), low)
        attention.out = Adapted(attention.out, (attention.out.out_features,), low)
        raising.up = Adapted(raising.up, (hidden, hidden) if raising.gated else (hidden,), low)
        raising.down = Adapted(raising.down, (raising.down.out_features,), low)


def merge(encoder: Encoder) -> None:
    """Put every adapter into the weight that it adapts, in place: what is left is the encoder of its spec."""
    for part in list(encoder.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, Adapted):
                setattr(part, name, child.merged())
