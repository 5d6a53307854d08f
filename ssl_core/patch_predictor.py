"""What stands in hidden patches, told from those that are seen. Needs torch.

The decoder of MAE (He et al. 2021, https://arxiv.org/abs/2111.06377) and the predictor of I-JEPA (Assran et al. 2023,
https://arxiv.org/abs/2301.08243), for pictures and for log-mel spectrograms as pictures of one channel.
B samples, N patches of the grid, K seen, M asked for, E width of the encoder, D width inside.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.encoders.vit import ViT, sincos_positions
from ssl_core.errors import SpecError
from ssl_core.layers import Layer, attend, initialise, norm_of
from ssl_core.nets import Nets
from ssl_core.patches import hide_at_random, normalised_patches, patchify, take, unpatchify


class PatchPredictor(nn.Module):
    """A narrow pre-norm Transformer over the seen patches and a mask token at each place asked for.

    Only what is asked for leaves the last layer, in which the others are looked at and nothing more. The order of
    tokens means nothing to attention, so they are never put back into the grid's.

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
        self.register_buffer("positions", sincos_positions(spec.width, grid), persistent=False)

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
        for layer in self.layers[:-1]:
            hidden = layer(hidden)
        told: Tensor = self.predict(self.final_norm(_asked(self.layers[-1], hidden, hide.shape[1])))
        return told


def _asked(layer: nn.Module, x: Tensor, count: int) -> Tensor:
    """(B, M, D): what a pre-norm layer makes of the last M tokens of (B, T, D), all of which they see."""
    assert isinstance(layer, Layer)
    assert layer.pre
    attention, normed = layer.attention, layer.attention_norm(x)
    own, head = attention.heads * attention.head_dim, attention.head_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    queries = F.linear(normed[:, -count:], weight[:own], bias[:own]).view(len(x), count, -1, head)
    keys, values = F.linear(normed, weight[own:], bias[own:]).view(*x.shape[:2], -1, head).chunk(2, 2)
    q, k, v = (part.transpose(1, 2) for part in (queries, keys, values))
    seen = attend(q, k, v, None, False, 0.0).transpose(1, 2).flatten(2)
    x = x[:, -count:] + attention.out(seen)
    raised: Tensor = x + layer.feed_forward(layer.feed_forward_norm(x))
    return raised


def predictor_spec(width: int, depth: int, heads: int) -> EncoderSpec:
    """The shape of a `PatchPredictor`. Raises ValueError where twice the heads do not divide the width."""
    return EncoderSpec(
        name="custom", family="transformer", width=width, depth=depth, heads=heads, positions="none",
        embedding_norm=False, norm_epsilon=1e-6,
    )  # fmt: skip


def patch_encoder(encoder: nn.Module) -> ViT:
    """The same encoder, typed.

    Raises:
        TypeError: it is no ViT.
        SpecError: `encoder_does_not_fit`, its patches overlap, so a hidden one would be seen in its neighbours.
    """
    if not isinstance(encoder, ViT):
        raise TypeError("hiding patches needs a vit")
    if encoder.spec.patch_stride not in (0, encoder.spec.patch_size):
        text = "patches that overlap show what is hidden: patch_stride must be 0 or patch_size"
        raise SpecError("encoder_does_not_fit", text, "backbone.patch_stride")
    return encoder


def masked_pixel_loss(
    nets: Nets, pictures: Tensor, seeds: Tensor, mask_ratio: float, normalise: bool
) -> dict[str, Tensor]:
    """The mean squared error of MAE, and the share of variance that is told (`explained`).

    Args:
        nets: a ViT, and a `PatchPredictor` of pixels under `decoder`.
        pictures: (B, C, H, W), or spectrograms (B, 1, mels, frames), of the size the ViT was built for.
        seeds: (B,) int64, which choose what is hidden.
        mask_ratio: share of the patches to hide.
        normalise: by each patch's own mean and deviation.
    """
    keep, hide = _hidden(nets, seeds, mask_ratio)
    target = take(patchify(pictures, patch_encoder(nets.encoder).spec.patch_size), hide).float()
    if normalise:
        target = normalised_patches(target)
    told = _told(nets, pictures, keep, hide)
    loss = F.mse_loss(told, target)
    with torch.no_grad():
        explained = 1 - loss / target.var(correction=0).clamp(min=1e-9)
    return {"loss": loss, "explained": explained}


def reconstruct(
    nets: Nets, pictures: Tensor, seeds: Tensor, mask_ratio: float, normalise: bool
) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) twice: what the encoder sees, the rest 0, and what the decoder makes of it.

    Arguments as in `masked_pixel_loss`. A patch told by its own mean and deviation gets the true ones back, as in the
    figures of the paper.
    """
    size, shape = patch_encoder(nets.encoder).spec.patch_size, (pictures.shape[2], pictures.shape[3])
    keep, hide = _hidden(nets, seeds, mask_ratio)
    patches, told = patchify(pictures, size), _told(nets, pictures, keep, hide)
    if normalise:
        variance, mean = torch.var_mean(take(patches, hide).float(), dim=-1, keepdim=True)
        told = told * (variance + 1e-6).sqrt() + mean
    places = hide[:, :, None].expand_as(told)
    made = (patches.scatter(1, places, 0.0), patches.scatter(1, places, told.to(patches.dtype)))
    return unpatchify(made[0], size, shape), unpatchify(made[1], size, shape)


def _hidden(nets: Nets, seeds: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
    rows, columns = patch_encoder(nets.encoder).grid
    return hide_at_random(seeds, rows * columns, mask_ratio)


def _told(nets: Nets, pictures: Tensor, keep: Tensor, hide: Tensor) -> Tensor:
    """(B, M, P P C) float32."""
    seen = torch.cat(patch_encoder(nets.encoder).read(pictures, keep), 1)
    told: Tensor = nets.parts["decoder"](seen, keep, hide).float()
    return told
