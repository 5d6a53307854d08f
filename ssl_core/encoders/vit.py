"""A Transformer over the patches of a picture. Needs torch.

Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929. One set of layers (those of the text trunk); the spec makes
it ViT, MAE's encoder (`positions="sincos"`), DINOv2 (`layer_scale`), AST (`patch_stride` below `patch_size`, two class
tokens, spectrograms), CLIP's picture tower (`embedding_norm`, `first_norm`) or SigLIP's (`pooling="attention"`). Tests
hold it to each of them, output and gradient.

Pictures may be of any shape, log-mel spectrograms among them, and of other sizes than the one it was built for: learned
and fixed positions are then stretched (bicubic), as DINO's small crops need.

B pictures, C channels, H x W pixels, P pixels along a side of a patch, N = h w patches numbered row by row, K of them
kept, R class tokens, G registers, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec, patch_grid
from ssl_core.batch import Inputs
from ssl_core.dropout import Dropout
from ssl_core.encoders.base import Encoder
from ssl_core.layers import FeedForward, Layer, attend, initialise, norm_of, shrink_residuals


class ViT(Encoder):
    """Patch embeddings behind class tokens and registers, `depth` layers, and a last norm where the layers have theirs
    in front.

    Attributes:
        grid: h and w of a picture of the size it was built for.
        position: (R + N, D) of the class tokens and that grid, learned or fixed; None without positions. Fixed ones
            are zero at class tokens, which are learned together with their place. Saved with the weights either way.
    """

    def __init__(self, spec: EncoderSpec, facts: dict[str, Any]) -> None:
        super().__init__()
        self.spec, self.facts, self.embed_dim = spec, facts, spec.width
        self.grid = patch_grid(spec, facts.get("height", facts["size"]), facts.get("width", facts["size"]))
        # The weight of a convolution, as public models store it; applied as one matrix product.
        self.patch = nn.Conv2d(
            facts["channels"], spec.width, spec.patch_size, spec.patch_stride or spec.patch_size, bias=spec.patch_bias
        )
        self.class_token = _token(spec.class_tokens, spec.width)
        self.register_token = _token(spec.register_tokens, spec.width)
        self.position = _positions(spec, self.grid)
        self.embedding_norm = norm_of(spec) if spec.embedding_norm else nn.Identity()
        self.dropout = Dropout(spec.dropout)
        self.layers = nn.ModuleList(Layer(spec, first=at == 0) for at in range(spec.depth))
        self.final_norm = norm_of(spec) if spec.norm == "pre" else nn.Identity()
        self.pool = AttentionPool(spec) if spec.pooling == "attention" else None
        self.apply(initialise)
        # "we use xavier_uniform to initialize all Transformer blocks" (MAE, appendix A.1); here of the patches, whose
        # few pixels would else be lost beside the positions.
        nn.init.xavier_uniform_(self.patch.weight.view(spec.width, -1))
        if spec.norm == "pre":
            shrink_residuals(self.layers)

    def patches(self, x: Inputs) -> Tensor:
        """(B, N, D) patch embeddings, before positions and norm."""
        return self._embed(self._pixels(x)[0])

    def encode(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> Tensor:
        """(B, N, D) or (B, K, D), the patches alone; see `Encoder.encode`. Class tokens are there whatever is kept."""
        return self.read(x, keep, fill)[1]

    def maps(self, x: Inputs) -> list[Tensor]:
        """The last layer's patches as one map (B, D, h, w): a plain ViT has no coarser or finer one."""
        rows, columns = self._pixels(x)[1]
        return [self.encode(x).transpose(1, 2).reshape(-1, self.embed_dim, rows, columns)]

    def positions_from(self, positions: Tensor, facts: dict[str, Any]) -> Tensor:
        """`position` for this one's grid, from (R + N', D) of a ViT of the same spec that was built for `facts`."""
        old = patch_grid(self.spec, facts.get("height", facts["size"]), facts.get("width", facts["size"]))
        count = self.spec.class_tokens
        return torch.cat([positions[:count], stretched(positions[count:], old, self.grid).to(positions.dtype)])

    def read(self, x: Inputs, keep: Tensor | None = None, fill: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, R, D) class tokens and (B, N, D) or (B, K, D) patches; arguments as in `encode`.

        What is not kept is left out before anything is computed of it.
        """
        pixels, grid = self._pixels(x)
        if fill is None:
            hidden = self._embed(pixels if keep is None else _chosen(pixels, keep))
        else:
            hidden = fill if keep is None else _chosen(fill, keep)
        count = self.spec.class_tokens
        classes: Tensor | None = self.class_token
        if self.position is not None:
            places = stretched(self.position[count:], self.grid, grid)
            hidden = hidden + (places if keep is None else F.embedding(keep, places)).to(hidden.dtype)
            classes = None if classes is None else classes + self.position[:count]
        in_front = [token.to(hidden.dtype).expand(hidden.shape[0], -1, -1)
                    for token in (classes, self.register_token) if token is not None]  # fmt: skip
        hidden = self.dropout(self.embedding_norm(torch.cat([*in_front, hidden], 1) if in_front else hidden))
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self.final_norm(hidden)
        return hidden[:, :count], hidden[:, count + self.spec.register_tokens :]

    def forward(self, x: Inputs) -> Tensor:
        """(B, D): the mean over the patches, or over the class tokens, or what a learned query finds in the patches, as
        the spec's `pooling` says."""
        classes, patches = self.read(x)
        if self.pool is not None:
            pooled: Tensor = self.pool(patches)
            return pooled
        return (classes if self.spec.pooling == "cls" else patches).mean(1)

    def _pixels(self, x: Inputs) -> tuple[Tensor, tuple[int, int]]:
        """(B, N, C P P) pixels of each patch, in the order of a convolution's weight, and h and w.

        What is left over at the right and lower edges is not seen, as by a convolution.
        """
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise TypeError("a vit reads pictures (B, C, H, W)")
        size, step = self.spec.patch_size, self.spec.patch_stride or self.spec.patch_size
        rows, columns = ((side - size) // step + 1 for side in x.shape[2:])
        if rows < 1 or columns < 1:
            raise ValueError(f"pictures of {x.shape[2]} x {x.shape[3]} are smaller than a patch of {size}")
        if step != size:
            return F.unfold(x, size, stride=step).transpose(1, 2), (rows, columns)
        whole = x[:, :, : rows * size, : columns * size]
        split = whole.reshape(x.shape[0], -1, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        return split.reshape(x.shape[0], rows * columns, -1), (rows, columns)

    def _embed(self, pixels: Tensor) -> Tensor:
        """(B, K, D) from (B, K, C P P)."""
        return F.linear(pixels, self.patch.weight.flatten(1), self.patch.bias)


class AttentionPool(nn.Module):
    """SigLIP's head: a learned query looks at all patches, then a feed-forward (Zhai et al. 2022, "Scaling vision
    transformers", https://arxiv.org/abs/2106.04560, section 3.3)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.query = nn.Parameter(torch.empty(1, spec.width))
        nn.init.xavier_uniform_(self.query)
        self.qkv = nn.Linear(spec.width, 3 * spec.width)
        self.out = nn.Linear(spec.width, spec.width)
        self.norm = norm_of(spec)
        self.feed_forward = FeedForward(spec)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) from (B, N, D)."""
        width = x.shape[2]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(self.query, weight[:width], bias[:width]).expand(x.shape[0], 1, width)
        keys, values = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=2)
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, width // self.heads).transpose(1, 2)
            for part in (query, keys, values)
        )
        seen = self.out(attend(q.to(k.dtype), k, v, None, False, 0.0).transpose(1, 2).flatten(1))
        found: Tensor = seen + self.feed_forward(self.norm(seen))
        return found


def sincos_positions(width: int, grid: tuple[int, int]) -> Tensor:
    """(N, D) float32: a quarter of the channels each for sine and cosine of the column, then of the row (MAE's code).

    Args:
        width: D, a multiple of 4.
        grid: h and w.
    """
    rates = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = (torch.arange(size, dtype=torch.float64)[:, None] * rates for size in grid)
    across = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(grid[0], -1, -1)
    down = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, grid[1], -1)
    return torch.cat([across, down], 2).reshape(-1, width).float()


def stretched(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(h' w', D) positions of a grid of another size, bicubic, from (h w, D).

    In float32, or better where they are: a kernel of bfloat16 would move them.
    """
    if old == new:
        return positions
    exact = positions.to(torch.promote_types(positions.dtype, torch.float32))
    picture = exact.T.reshape(1, -1, *old)
    resized = F.interpolate(picture, size=new, mode="bicubic", align_corners=False)
    return resized[0].flatten(1).T


def _chosen(x: Tensor, keep: Tensor) -> Tensor:
    return x.gather(1, keep[:, :, None].expand(-1, -1, x.shape[2]))


def _token(count: int, width: int) -> nn.Parameter | None:
    """(count, D), or None where there are none: a parameter without numbers would be no parameter."""
    return nn.Parameter(0.02 * torch.randn(count, width)) if count else None


def _positions(spec: EncoderSpec, grid: tuple[int, int]) -> Tensor | None:
    if spec.positions == "sincos":
        fixed = sincos_positions(spec.width, grid)
        return nn.Buffer(torch.cat([fixed.new_zeros(spec.class_tokens, spec.width), fixed]))
    if spec.positions == "learned":
        return nn.Parameter(0.02 * torch.randn(spec.class_tokens + grid[0] * grid[1], spec.width))
    return None
