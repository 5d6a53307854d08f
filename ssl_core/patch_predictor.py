"""What stands in hidden patches, told from those that are seen. Needs torch.

The decoder of MAE (He et al. 2021, https://arxiv.org/abs/2111.06377) and the predictor of I-JEPA (Assran et al. 2023,
https://arxiv.org/abs/2301.08243). Serves every objective that hides parts of a grid: pictures, and log-mel spectrograms as pictures of one channel.
B samples, N patches of the grid, K seen, M asked for, E width of the encoder, D width inside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.layers import Layer, initialise, norm_of
from ssl_core.patches import grid_positions


class PatchPredictor(nn.Module):
    """A narrow pre-norm Transformer over the seen patches and a mask token at each place asked for.

    Only what is asked for goes through the last norm and layer. The order of tokens means nothing to attention, so they
    are never put back into the grid's.

    Args of the constructor:
        width: E.
        spec: its own shape, see `predictor_spec`.
        grid: rows and columns of the patches.
        out: numbers told of a patch.
    """

    positions: Tensor

    def __init__(self, width: int, spec: EncoderSpec, grid: tuple[int, int], out: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, spec.width)
        self.mask_token = nn.Parameter(torch.zeros(spec.width))
        self.layers = nn.ModuleList(Layer(spec, first=at == 0) for at in range(spec.depth))
        self.final_norm = norm_of(spec)
        self.predict = nn.Linear(spec.width, out)
        self.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", grid_positions(grid, spec.width), persistent=False)

    def forward(self, seen: Tensor, keep: Tensor, hide: Tensor) -> Tensor:
        """(B, M, out).

        Args:
            seen: (B, G + K, E) the encoder's output: G tokens without a place (class tokens), then the seen patches.
            keep: (B, K) int64 places of the seen patches.
            hide: (B, M) int64 places asked for.
        """
        hidden = self.embed(seen)
        free = hidden.shape[1] - keep.shape[1]
        asked = (self.mask_token + self.positions[hide]).to(hidden.dtype)
        hidden = torch.cat([hidden[:, :free], hidden[:, free:] + self.positions[keep].to(hidden.dtype), asked], 1)
        for layer in self.layers:
            hidden = layer(hidden)
        told: Tensor = self.predict(self.final_norm(hidden[:, -hide.shape[1] :]))
        return told


def predictor_spec(width: int, depth: int, heads: int) -> EncoderSpec:
    """The shape of a `PatchPredictor`. Raises ValueError where twice the heads do not divide the width."""
    return EncoderSpec(
        name="custom", family="transformer", width=width, depth=depth, heads=heads, positions="none",
        embedding_norm=False, norm_epsilon=1e-6,
    )  # fmt: skip
