"""Views of pictures with texts, batched on the training device. Needs torch.

B samples; raw tensors are those of both sides, called `image.pixels`, `text.ids` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssl_core.batch import Pairs, Tokens
from ssl_core.data import captions, image_views, text_views, tokenizer
from ssl_core.errors import DataError
from ssl_core.rng import uniform

if TYPE_CHECKING:
    from ssl_core.modalities.image import ImageModality
    from ssl_core.modalities.text import TextModality

_NEEDED = "an item is {image: the bytes of a picture file}, {text: a string}, or both"


_DROPOUT, _STRIDE = 701, 16  # random streams


def pair(
    raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: tuple[ImageModality, TextModality], dropout: float
) -> Pairs:
    """The picture by the augmentation of SimCLR, as strong as the settings say, and the text less `dropout` of it."""
    pictures, texts = settings
    image = image_views.random_global(_side(raw, "image"), seeds, index, pictures)
    text = text_views.plain(_side(raw, "text"), texts.max_length)
    return Pairs(image, _thinned(text, seeds, _DROPOUT + _STRIDE * index, dropout) if dropout else text)


def _thinned(tokens: Tokens, seeds: Tensor, stream: int, share: float) -> Tokens:
    """With `share` of the tokens hidden from the encoder as padding is, at least one left of each text.

    Ids and positions stay, so that `pair_losses.fingerprints` still knows the text.
    """
    real = tokens.segments >= 0
    draws = torch.where(real, uniform(seeds, real.shape[1], stream), -1.0)
    hidden = (draws < share) & (draws < draws.amax(1, keepdim=True))
    segments = torch.where(hidden, -1, tokens.segments)
    return Tokens(tokens.ids, segments, tokens.positions, tokens.word_starts)


def plain(raw: Mapping[str, Tensor], settings: tuple[ImageModality, TextModality]) -> Pairs:
    """The middle of the picture, and the whole text; only what there is, where `raw` has `pictured` and `worded`."""
    pictures, texts = settings
    pictured, worded = raw.get("pictured"), raw.get("worded")
    if pictured is None or worded is None or bool((pictured & worded).all()):
        image, text = _side(raw, "image"), _side(raw, "text")
        return Pairs(image_views.plain(image, pictures.size), text_views.plain(text, texts.max_length))
    image = {name: values[pictured] for name, values in _side(raw, "image").items()}
    text = {name: values[~pictured] for name, values in _side(raw, "text").items()}
    return Pairs(
        image_views.plain(image, pictures.size) if bool(pictured.any()) else None,
        _shortened(text_views.plain(text, texts.max_length), text["lengths"]) if not bool(pictured.all()) else None,
        pictured,
    )


def _shortened(tokens: Tokens, lengths: Tensor) -> Tokens:
    """Without the columns that are padding in every row."""
    most = int(lengths.max())
    starts = tokens.word_starts
    return Tokens(
        tokens.ids[:, :most], tokens.segments[:, :most], tokens.positions[:, :most],
        None if starts is None else starts[:, :most],
    )  # fmt: skip


def _side(raw: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{side}."): values for name, values in raw.items() if name.startswith(f"{side}.")}


def collate(items: list[Any], folder: Path, frame: captions.Frame) -> dict[str, Tensor]:
    """Pairs as `PairSource.read` gives them, and `pictured` and `worded` (B,) bool: which sides an item has.

    Also `tokens` (B,): how many a model reads of it, a picture counted as one.

    Args:
        items: mappings of `image`, `text` or both; the bytes of a picture file, or a string or token ids, alone.
        folder: a model folder or a prepared one.
        frame: how texts are read.

    Raises:
        DataError: `invalid_input` and as either side raises; `param` is `items.<number>`.
    """
    sides = [_sides(item, f"items.{number}") for number, item in enumerate(items)]
    facts = image_views.facts_of(folder)["image"]
    images = image_views.from_files([image for image, _ in sides], facts)
    worded = [[tokenizer.UNK] if text is None else text for _, text in sides]
    texts = text_views.collate(worded, folder, frame.length, frame=frame)
    both = {f"image.{name}": values for name, values in images.items()}
    both |= {f"text.{name}": values for name, values in texts.items()}
    pictured, told = (torch.tensor([side[at] is not None for side in sides], dtype=torch.bool) for at in (0, 1))
    tokens = pictured + torch.where(told, texts["lengths"], 0)
    return {**both, "pictured": pictured, "worded": told, "tokens": tokens}


def _sides(item: Any, param: str) -> tuple[Any, Any]:
    """Picture and text of an item, None for what it does not have."""
    if isinstance(item, bytes):
        return item, None
    if isinstance(item, str | list):
        return None, item
    if not isinstance(item, Mapping) or not item or item.keys() - {"image", "text"}:
        raise DataError("invalid_input", _NEEDED, param)
    if any(value is None for value in item.values()):
        raise DataError("invalid_input", _NEEDED, param)
    return item.get("image"), item.get("text")
