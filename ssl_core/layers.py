"""Layers that encoders and objectives share. Needs torch.

B rows, T token slots, D width, H heads, E = D / H.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotary_angles(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, 1, T, E / 2) of rotary positions: Su et al. 2021, RoFormer, https://arxiv.org/abs/2104.09864.

    The two halves of a head share their angles (the layout of GPT-NeoX, Llama and ModernBERT), not neighbours.

    Args:
        positions: (B, T) int64.
        head_dim: E, even.
        base: wavelengths run from 2 pi to 2 pi base.
        dtype: of the result; the angles themselves are at least float32.
    """
    exact = torch.promote_types(dtype, torch.float32)
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=exact) / head_dim
    angles = positions[:, None, :, None].to(exact) * base**-steps
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn queries or keys (..., E) by their positions; the angles (..., E / 2) broadcast."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention by `scaled_dot_product_attention` (Vaswani et al. 2017, arXiv 1706.03762)."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """(B, T, D) from (B, T, D).

        Args:
            x: the tokens.
            mask: bool, broadcasts to (B, H, T, T), True where a token may look; None = everywhere.
            rotary: see `rotary_angles`; None where positions are learned.
        """
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            # Both at once and where they lie: turned one by one after the transpose they cost a third more.
            cosine, sine = (part.transpose(1, 2)[:, :, None] for part in rotary)
            q, k = rotate(qkv[:, :, :2], cosine, sine).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        mixed: Tensor = self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return mixed


class FeedForward(nn.Module):
    """Two matrices with a nonlinearity; `geglu` and `swiglu` gate it (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, width: int, hidden: int, kind: str, bias: bool) -> None:
        super().__init__()
        self.kind = kind
        self.up = nn.Linear(width, hidden if kind == "gelu" else 2 * hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) from (..., D)."""
        raised = self.up(x)
        if self.kind == "gelu":
            hidden = F.gelu(raised)
        else:
            gate, value = raised.chunk(2, dim=-1)
            hidden = (F.gelu(gate) if self.kind == "geglu" else F.silu(gate)) * value
        lowered: Tensor = self.down(hidden)
        return lowered


class ProjectionHead(nn.Sequential):
    """Linear layers with batch normalisation and ReLU between them: the projector of SimCLR.

    "We find that a nonlinear projection is better than a linear projection, and much better than no projection"
    (Chen et al. 2020, https://arxiv.org/abs/2002.05709, section 4.2); normalised as in the authors' code.
    """

    def __init__(self, width: int, hidden: int, out: int, layers: int) -> None:
        sizes = [width, *[hidden] * (layers - 1)]
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        super().__init__(*parts, nn.Linear(sizes[-1], out, bias=False))


def masked_mean(x: Tensor, real: Tensor) -> Tensor:
    """(B, D) mean of (B, T, D) over the slots where `real` (B, T) is True; zero for a row without any.

    In float32 or better, also under autocast: bf16 cannot even count past 256 slots.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    weights = real.to(exact)
    with torch.autocast(x.device.type, enabled=False):
        total = torch.bmm(weights[:, None], x.to(exact)).squeeze(1)
    return total / weights.sum(1, keepdim=True).clamp(min=1)
