"""Pictures as grids of patches: which are hidden, and what stands in them. Needs torch.

For pictures (B, C, H, W) of any shape that a patch divides, log-mel spectrograms (B, 1, mels, frames) among them.
Patches are numbered row by row. Masks are index pairs of fixed shape: every sample keeps as many patches as any other,
so nothing is padded and nothing waits for the device.

B pictures, P pixels along a side of a patch, h = H / P rows and w = W / P columns of patches, N = h w; K patches are
kept, M hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.rng import uniform

_HIDE, _ROWS, _COLUMNS, _TURN, _CONTEXT = 301, 302, 303, 304, 305  # numbers of the random streams


def patchify(pictures: Tensor, size: int) -> Tensor:
    """(B, N, P P C) pixels of each patch, channels last: the order of the MAE authors' code.

    Raises:
        ValueError: a side is not a multiple of the patch.
    """
    batch, channels, height, width = pictures.shape
    if height % size or width % size:
        raise ValueError(f"pictures of {height} x {width} are not made of patches of {size}")
    split = pictures.reshape(batch, channels, height // size, size, width // size, size)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, size * size * channels)


def unpatchify(patches: Tensor, size: int, shape: tuple[int, int]) -> Tensor:
    """(B, C, H, W): the inverse of `patchify`.

    Args:
        patches: (B, N, P P C).
        size: P.
        shape: H and W.
    """
    rows, columns = shape[0] // size, shape[1] // size
    split = patches.reshape(len(patches), rows, columns, size, size, -1)
    return split.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, *shape)


def normalised_patches(patches: Tensor) -> Tensor:
    """(..., P P C), each patch with mean 0 and deviation 1 of its own: MAE's better target (its table 1d)."""
    patches = patches.float()
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) * torch.rsqrt(variance + 1e-6)


def hide_at_random(seeds: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """`keep` (B, K) and `hide` (B, M) int64: together every patch once, each in random order.

    Args:
        seeds: (B,) int64.
        count: N.
        share: of the patches to hide; at least one is kept and one hidden.
    """
    kept = min(count - 1, max(1, int(count * (1 - share))))
    order = uniform(seeds, count, _HIDE).argsort(dim=1, stable=True)
    return order[:, :kept], order[:, kept:]


def take(rows: Tensor, places: Tensor) -> Tensor:
    """(B, K, D) of (B, N, D) at the places (B, K)."""
    return rows.gather(1, places[:, :, None].expand(-1, -1, rows.shape[2]))


@dataclass(frozen=True)
class Blocks:
    """How large the target blocks of I-JEPA are on a grid of h x w patches, and how much context is left.

    Attributes:
        grid: h and w.
        block: rows and columns of a block; each one lies or stands at random where that fits.
        targets: T, blocks of a sample.
        context: K, patches of the context: as many as are left when no two blocks overlap.
    """

    grid: tuple[int, int]
    block: tuple[int, int]
    targets: int
    context: int

    @classmethod
    def of(cls, grid: tuple[int, int], targets: int, area: tuple[float, float], aspect: float) -> Blocks:
        """The block whose area is nearest to the middle of `area`, the longest of equals, as far as the context keeps a
        sixth of the patches.

        Args:
            grid: h and w.
            targets: T.
            area: least and greatest share of the patches in a block.
            aspect: how much longer than wide a block may be.

        Raises:
            ValueError: there are not enough patches for so many blocks.
        """
        rows, columns = grid
        count = rows * columns
        wanted = (area[0] + area[1]) / 2 * count
        shapes = [
            (short, long)
            for short in range(1, min(grid) + 1)
            for long in range(short, max(short, math.floor(aspect * short)) + 1)
            if long <= min(grid) and count - targets * short * long >= max(1, count // 6)
        ]
        if not shapes:
            raise ValueError(f"{targets} blocks leave too little of {rows} x {columns} patches as context")
        block = min(shapes, key=lambda shape: (abs(shape[0] * shape[1] - wanted), -shape[1]))
        return cls(grid, block, targets, count - targets * block[0] * block[1])

    def draw(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """`context` (B, K) and `targets` (B, T, M) int64 patch numbers; no patch of the context is in any target.

        Args:
            seeds: (B,) int64.
        """
        targets = self._targets(seeds)
        rows, columns = self.grid
        scores = uniform(seeds, rows * columns, _CONTEXT)
        # Beyond every other score, so that no target is among the first K.
        scores = scores.scatter(1, targets.flatten(1), 2.0)
        return scores.argsort(dim=1, stable=True)[:, : self.context].sort(dim=1).values, targets

    def _targets(self, seeds: Tensor) -> Tensor:
        rows, columns = self.grid
        short, long = self.block
        lies = uniform(seeds, self.targets, _TURN) < 0.5
        height, width = torch.where(lies, short, long), torch.where(lies, long, short)
        top = (uniform(seeds, self.targets, _ROWS) * (rows - height + 1)).long()
        left = (uniform(seeds, self.targets, _COLUMNS) * (columns - width + 1)).long()
        place = torch.arange(short * long, device=seeds.device)
        down, across = place // width[:, :, None], place % width[:, :, None]
        return (top[:, :, None] + down) * columns + left[:, :, None] + across
