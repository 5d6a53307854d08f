"""Layers that encoders and objectives share. Needs torch.

B rows, T token slots, D width, H heads, E = D / H, S slots of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import GATED, EncoderSpec
from ssl_core.dropout import Dropout, drop
from ssl_core.short_attention import attend_short, pays


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


class Past:
    """Keys and values of the tokens that a layer has read, for generation a token at a time.

    Attributes:
        keys, values: (B, H or fewer, S, E), or None before the first token.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, after taking these in behind what is there."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
        self.keys, self.values = keys, values
        return keys, values

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what was row `rows[i]` (beam search). `rows` is (B',) int64."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


class Attention(nn.Module):
    """Multi-head self-attention by `scaled_dot_product_attention` (Vaswani et al. 2017, arXiv 1706.03762).

    With fewer heads of keys and values than of queries, neighbouring queries share them: grouped-query attention
    (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245).
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.heads, self.shared, self.dropout = spec.heads, spec.key_value_heads or spec.heads, spec.dropout
        self.head_dim = spec.width // spec.heads
        inner = (self.heads + 2 * self.shared) * self.head_dim
        self.qkv = nn.Linear(spec.width, inner, bias=spec.bias if spec.qkv_bias == "same" else spec.qkv_bias == "yes")
        self.out = nn.Linear(spec.width, spec.width, bias=spec.bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        causal: bool = False,
        past: Past | None = None,
    ) -> Tensor:
        """(B, T, D) from (B, T, D).

        Args:
            x: the tokens.
            mask: bool, broadcasts to (B, H, T, T), True where a token may look; None = everywhere.
            rotary: see `rotary_angles`; None where positions are learned.
            causal: without a mask and a past: a token sees no slot behind its own.
            past: of the tokens before these; these are added to it.
        """
        batch, length, width = x.shape
        turned = self.heads + self.shared
        # Neighbouring heads: the queries', then the keys', then the values'.
        qkv = self.qkv(x).view(batch, length, turned + self.shared, self.head_dim)
        # Split, not sliced: the gradient of a split is one copy, that of slices a zeroed whole and a sum for each.
        qk, values = qkv.split((turned, self.shared), 2)
        if rotary is not None:
            # Both at once and where they lie: turned one by one after the transpose they cost a third more.
            qk = rotate(qk, *(part.transpose(1, 2) for part in rotary))
        q, k = (part.transpose(1, 2) for part in qk.split((self.heads, self.shared), 2))
        v = values.transpose(1, 2)
        if past is not None:
            k, v = past.extended(k, v)
        seen = attend(q, k, v, mask, causal, self.dropout if self.training else 0.0)
        mixed: Tensor = self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return mixed


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """(B, H, T, E) from queries (B, H, T, E), keys and values (B, G, S, E); G divides H."""
    groups = q.shape[1] // k.shape[1]
    grouped = groups > 1
    if dropout > 0 and q.device.type == "cpu" and not torch.compiler.is_compiling():
        return _attend_dropping(q, k, v, mask, causal, dropout)
    if mask is None and not causal and not grouped and pays(q, k):
        return attend_short(q, k, v)
    if grouped and mask is not None and q.device.type != "cpu":
        # No fused kernel of a GPU takes groups and a mask.
        k, v, grouped = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), False
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, enable_gqa=grouped
    )


def _attend_dropping(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, dropout: float) -> Tensor:
    """As `attend`. No kernel of a CPU fuses dropout, and written out it takes our quicker one."""
    if (groups := q.shape[1] // k.shape[1]) > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    if mask is None and causal:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool).tril()
    if mask is not None:
        # Finite, so that a row without keys is no NaN.
        scores.add_((mask.to(scores.dtype) - 1).mul_(torch.finfo(scores.dtype).max))
    return drop(scores.softmax(-1), dropout) @ v


_NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "geglu": F.gelu,
    "swiglu": F.silu,
}


class FeedForward(nn.Module):
    """Two matrices with a nonlinearity; `geglu` and `swiglu` gate it (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    `gelu_tanh` is GPT-2's approximation, `quick_gelu` CLIP's.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        hidden = round(spec.mlp_ratio * spec.width)
        self.gated, self.nonlinearity = spec.mlp in GATED, _NONLINEARITIES[spec.mlp]
        self.up = nn.Linear(spec.width, 2 * hidden if self.gated else hidden, bias=spec.bias)
        self.down = nn.Linear(hidden, spec.width, bias=spec.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) from (..., D)."""
        raised = self.up(x)
        if self.gated:
            gate, value = raised.chunk(2, dim=-1)
            hidden = self.nonlinearity(gate) * value
        else:
            hidden = self.nonlinearity(raised)
        lowered: Tensor = self.down(hidden)
        return lowered


class Layer(nn.Module):
    """Attention, then a feed-forward, each added to what came in; the norm stands before (`pre`) or after (`post`).

    With `layer_scale`, what is added is multiplied by a learned factor a channel (Touvron et al. 2021, CaiT,
    https://arxiv.org/abs/2103.17239).
    """

    def __init__(self, spec: EncoderSpec, first: bool) -> None:
        super().__init__()
        self.pre = spec.norm == "pre"
        # Where the embedding is normalised already, a pre-norm trunk has no norm before its first attention.
        bare = self.pre and first and spec.embedding_norm and not spec.first_norm
        self.attention_norm = nn.Identity() if bare else norm_of(spec)
        self.attention = Attention(spec)
        self.feed_forward_norm = norm_of(spec)
        self.feed_forward = FeedForward(spec)
        self.dropout = Dropout(spec.dropout)
        if spec.layer_scale > 0:
            self.attention_scale: nn.Module = LayerScale(spec)
            self.feed_forward_scale: nn.Module = LayerScale(spec)
        else:
            self.attention_scale = self.feed_forward_scale = nn.Identity()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        causal: bool = False,
        past: Past | None = None,
    ) -> Tensor:
        """(B, T, D) from (B, T, D); arguments as in `Attention.forward`."""
        if self.pre:
            seen = self.attention_scale(self.attention(self.attention_norm(x), mask, rotary, causal, past))
            x = x + self.dropout(seen)
            raised: Tensor = x + self.dropout(self.feed_forward_scale(self.feed_forward(self.feed_forward_norm(x))))
            return raised
        seen = self.attention_scale(self.attention(x, mask, rotary, causal, past))
        x = self.attention_norm(x + self.dropout(seen))
        normed: Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward_scale(self.feed_forward(x))))
        return normed


class LayerScale(nn.Module):
    """A learned factor a channel."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((spec.width,), spec.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) from (..., D)."""
        return x * self.factor


def norm_of(spec: EncoderSpec, width: int = 0) -> nn.Module:
    """The norm of a spec's kind, over `width` channels (0 = its own)."""
    if spec.norm_kind == "rms":
        return nn.RMSNorm(width or spec.width, eps=spec.norm_epsilon)
    return nn.LayerNorm(width or spec.width, eps=spec.norm_epsilon, bias=spec.bias)


_INITIAL_STD = 0.02  # BERT's


def initialise(module: nn.Module) -> None:
    """BERT's start, for `Module.apply`: weights from a normal cut at three deviations of 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=_INITIAL_STD, a=-3 * _INITIAL_STD, b=3 * _INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def shrink_residuals(layers: nn.ModuleList) -> None:
    """GPT-2's rule: what a layer adds to the stream starts 1 / sqrt(additions) as large, two a layer."""
    with torch.no_grad():
        for name, weight in layers.named_parameters():
            if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
                weight.mul_((2 * len(layers)) ** -0.5)


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
