"""Where the last layer looks, of a few samples. Needs torch.

The layers keep no attention map (they use a fused kernel), so that of one layer is computed again from what it read.
B samples, H heads, T tokens or class tokens, registers and patches, D width, E = D / H.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssl_core.batch import Inputs, Tokens
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.encoders.vit import ViT
from ssl_core.evaluation.samples import Show
from ssl_core.layers import Attention, rotate

_HEADS, _TOKENS, _WIDTH = 6, 24, 1536
"""Of a table, at most: heads, tokens, and pixels of the pictures beside each other."""
_CELL, MARGIN, _LETTERS = 18, 110, 16
"""Pixels of a cell and of the margin for the tokens' names, and letters of a name, at most."""


def tell(encoder: Encoder, views: tuple[Inputs, ...], show: Show) -> None:
    """Keep a picture of the last layer's attention, where the encoder is a ViT or a Transformer and a view is its own.

    Args:
        encoder: in evaluation mode.
        views: of a few samples.
        show: keeps the picture.
    """
    for view in views:
        if isinstance(encoder, ViT) and isinstance(view, Tensor) and view.shape[1] in (1, 3):
            return _tell_patches(encoder, view, show)
        if isinstance(encoder, Transformer) and isinstance(view, Tokens):
            return _tell_tokens(encoder, view, show)


@torch.no_grad()
def last_attention(encoder: ViT | Transformer, x: Inputs) -> Tensor:
    """(B, H, T, T) weights of the last layer; a row is what one place looks at, and sums to 1."""
    layer = encoder.layers[-1].attention
    assert isinstance(layer, Attention)
    found: list[Tensor] = []

    def look(module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(weights(module, *args, **kwargs))

    hook = layer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        encoder.encode(x)
    finally:
        hook.remove()
    return found[0]


def weights(
    attention: Attention,
    x: Tensor,
    mask: Tensor | None = None,
    rotary: tuple[Tensor, Tensor] | None = None,
    causal: bool = False,
    past: None = None,
) -> Tensor:
    """(B, H, T, T) that `Attention.forward` mixes the values with; arguments as there."""
    turned = attention.heads + attention.shared
    qkv: Tensor = attention.qkv(x)
    qk = qkv.view(*x.shape[:2], -1, attention.head_dim)[:, :, :turned].transpose(1, 2)
    if rotary is not None:
        qk = rotate(qk, *rotary)
    q, k = qk[:, : attention.heads], qk[:, attention.heads :]
    scores = q @ k.repeat_interleave(attention.heads // attention.shared, 1).transpose(2, 3) * attention.head_dim**-0.5
    if mask is None and causal:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=x.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    shares: Tensor = scores.softmax(-1)
    return shares


def _tell_patches(encoder: ViT, pictures: Tensor, show: Show) -> None:
    spec, (high, wide) = encoder.spec, pictures.shape[2:]
    step = spec.patch_stride or spec.patch_size
    grid = [(side - spec.patch_size) // step + 1 for side in (high, wide)]
    first = spec.class_tokens + spec.register_tokens
    # Of class tokens where there are some, as in DINO's figures; else of all patches.
    asking = slice(0, spec.class_tokens) if spec.class_tokens else slice(first, None)
    # One by one: of a long spectrogram the whole table takes 70 MB.
    looks = [last_attention(encoder, picture[None])[:, :, asking, first:].mean(2) for picture in pictures]
    maps = torch.cat(looks).reshape(len(pictures), -1, *grid)
    heads = min(_HEADS, max(0, _WIDTH // wide - 2))
    maps = torch.cat([maps.mean(1, keepdim=True), maps[:, :heads]], 1).float()
    dark, light = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    maps = F.interpolate((maps - dark) / (light - dark).clamp(min=1e-12), size=(high, wide))
    # The table has one range, that of the pictures.
    least, most = float(pictures.min()), float(pictures.max())
    columns = [least + (most - least) * maps[:, column : column + 1] for column in range(maps.shape[1])]
    who = "class tokens" if spec.class_tokens else "patches, on average,"
    text = f"pictures, and where the {who} of the last layer look: the mean of all heads, then one head a column"
    show.pictures("attention", [pictures, *columns], text)


def _tell_tokens(encoder: Transformer, tokens: Tokens, show: Show) -> None:
    document = _longest(tokens)
    if len(document) < 2:
        return
    places = torch.arange(len(document), device=document.device)[None]
    alone = Tokens(document[None], torch.zeros_like(places, dtype=torch.int32), places)
    looks = last_attention(encoder, alone)[0].mean(0).float().cpu()
    names = [_name(show.words([index])) for index in document.tolist()]
    caption = "what each token (a row) of a text looks at (columns) in the last layer, mean of all heads"
    show.image("attention", heat_map(looks, names), caption)


def _longest(tokens: Tokens) -> Tensor:
    """The first tokens of the longest document."""
    found = tokens.ids.new_zeros(0)
    for ids, segments in zip(tokens.ids, tokens.segments, strict=True):
        sizes = segments[segments >= 0].long().bincount()
        if len(sizes) and int(sizes.max()) > len(found):
            found = ids[segments == int(sizes.argmax())]
    return found[:_TOKENS]


def _name(token: str) -> str:
    """What can be seen of a token: a blank is `_`, a line break `\\n`."""
    told = repr(token)[1:-1]
    return (told.strip() or "_" * len(told))[:_LETTERS]


def heat_map(values: Tensor, names: list[str], cell: int = _CELL) -> Image.Image:
    """A picture of (T, T) values of 0 to their greatest, darker where greater, with names at the rows and columns; each
    value is `cell` pixels wide and high, and the names take `MARGIN` above and at the left."""
    side = cell * len(names)
    shades = 255 - (255 * values / values.max().clamp(min=1e-12)).round().to(torch.uint8)
    cells = Image.fromarray(shades.numpy()).resize((side, side), Image.Resampling.NEAREST)
    rows, columns = _labels(names, "right", cell), _labels(names, "left", cell).rotate(90, expand=True)
    table = Image.new("L", (MARGIN + side, MARGIN + side), 255)
    table.paste(rows, (0, MARGIN))
    table.paste(columns, (MARGIN, 0))
    table.paste(cells, (MARGIN, MARGIN))
    return table


def _labels(names: list[str], side: Literal["left", "right"], cell: int) -> Image.Image:
    """The names below each other, flush with a side; turned to the left, the left one is the lower one."""
    strip = Image.new("L", (MARGIN, cell * len(names)), 255)
    drawing, font = ImageDraw.Draw(strip), ImageFont.load_default(11)
    across, anchor = (4, "lm") if side == "left" else (MARGIN - 4, "rm")
    for place, name in enumerate(names):
        drawing.text((across, cell * place + cell // 2), name, fill=0, font=font, anchor=anchor)
    return strip
