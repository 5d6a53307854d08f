"""Views of images, batched on the training device. Needs torch.

B pictures, C channels, S side as stored, O side of the view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ssl_core import augment
from ssl_core.data import pictures, shards
from ssl_core.errors import DataError
from ssl_core.rng import uniform

if TYPE_CHECKING:
    from ssl_core.modalities.image import ImageModality

# Random streams of view 0; view i adds 16 i.
_CROP, _FLIP, _COLOUR, _BLUR, _STRIDE = 201, 202, 203, 204, 16
_SIGMA = (0.1, 2.0)
"""Least and greatest blur width in pixels, as in SimCLR."""
_SIGMA_SHARE = 1 / 40
"""Nor wider than this share of the side: SimCLR's kernel spans a tenth of the side, which cuts a wider Gaussian."""


def plain(raw: Mapping[str, Tensor], size: int) -> Tensor:
    """(B, C, O, O): the middle of each picture."""
    return augment.normalise(augment.centre_crop(_unit(raw["pixels"]), size), raw["mean"], raw["std"])


def light(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: ImageModality) -> Tensor:
    """(B, C, O, O): shifted by up to an eighth of the side, half of them mirrored."""
    stream = _STRIDE * index
    size = settings.size
    padding = size // 8 if raw["pixels"].shape[-1] == size else 0
    shift = uniform(seeds, 2, _CROP + stream)
    mirror = _mirrored(seeds, stream, settings)
    cropped = augment.shift_crop(raw["pixels"], size, padding, shift, mirror)
    return augment.normalise(_unit(cropped), raw["mean"], raw["std"])


def random_crop(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: ImageModality) -> Tensor:
    """(B, C, O, O): random resized crop and flip, colours as they are, normalised."""
    area = (settings.crop_min, settings.crop_max)
    cropped = _cropped(raw["pixels"], seeds, _STRIDE * index, settings, (settings.size, area, 0.0))
    return augment.normalise(cropped, raw["mean"], raw["std"])


def random_global(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: ImageModality) -> Tensor:
    """(B, C, O, O): random resized crop, flip, blur, colour jitter and grey, normalised."""
    area = (settings.crop_min, settings.crop_max)
    return _distorted(raw, seeds, index, settings, (settings.size, area, settings.blur_probability))


def random_local(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: ImageModality) -> Tensor:
    """(B, C, `local_size`, `local_size`): as `random_global`, of a smaller part."""
    area = (settings.local_min, settings.local_max)
    return _distorted(raw, seeds, index, settings, (settings.local_size, area, settings.blur_probability))


_NEEDED = "an image item is the bytes of a picture file"
RANDOM = {"light": light, "crop": random_crop, "global": random_global, "local": random_local}
"""Random views by name."""
_Crop = tuple[int, tuple[float, float], float]
"""Side of the view, least and greatest share of the area, share of the pictures that is blurred."""


def _distorted(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: ImageModality, crop: _Crop) -> Tensor:
    stream = _STRIDE * index
    cropped = _cropped(raw["pixels"], seeds, stream, settings, crop)
    jitter = augment.Jitter(settings.jitter, settings.jitter_probability, settings.grey_probability)
    draws = uniform(seeds, 6, _COLOUR + stream)
    matrix, offset = augment.colour_transform(draws, augment.mean_luma(cropped), settings.channels, jitter)
    return augment.normalise(augment.recolour(cropped, matrix, offset), raw["mean"], raw["std"])


def _cropped(pixels: Tensor, seeds: Tensor, stream: int, settings: ImageModality, crop: _Crop) -> Tensor:
    """(B, C, O, O) from 0 to 1: crop, resize, flip and blur are one matrix for the rows and one for the columns."""
    stored, (size, area, blurred) = pixels.shape[-1], crop
    top, left, height, width = augment.crop_boxes(uniform(seeds, 4, _CROP + stream), area).unbind(1)
    rows = augment.resize_matrix(top, height, stored, size)
    columns = augment.resize_matrix(left, width, stored, size, _mirrored(seeds, stream, settings))
    if blurred > 0:
        blur = augment.blur_matrix(_blur_widths(seeds, stream, size, blurred), size)
        rows, columns = blur @ rows, blur @ columns
    return augment.resample(_unit(pixels), rows, columns)


def _mirrored(seeds: Tensor, stream: int, settings: ImageModality) -> Tensor:
    chance = 0.5 if settings.flip else 0.0
    return uniform(seeds, 1, _FLIP + stream)[:, 0] < chance


def _blur_widths(seeds: Tensor, stream: int, size: int, share: float) -> Tensor:
    whether, width = uniform(seeds, 2, _BLUR + stream).unbind(1)
    least, most = _SIGMA[0], min(_SIGMA[1], size * _SIGMA_SHARE)
    return torch.where(whether < share, least + (most - least) * width, 0.0)


def _unit(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32).mul_(1 / 255)


def collate(items: list[Any], folder: Path) -> dict[str, Tensor]:
    """Pictures as `ImageSource.read` gives them, from the bytes of files.

    Args:
        items: whole picture files.
        folder: a model folder or a prepared one; its facts hold the stored side, mean and deviation.

    Raises:
        DataError: as `pictures.decode`, or `invalid_input` where an item is not bytes; `param` is `items.<number>`.
    """
    absent = next((number for number, item in enumerate(items) if item is None), None)
    if absent is not None:
        raise DataError("invalid_input", _NEEDED, f"items.{absent}")
    return from_files(items, facts_of(folder))


def from_files(items: list[Any], facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same by the facts themselves; an item may be None, whose picture is black."""
    side, channels = int(facts["side"]), int(facts["channels"])
    how = side, str(facts.get("fit", "crop"))
    squares = np.zeros((len(items), channels, side, side), dtype=np.uint8)
    for number, item in enumerate(items):
        if item is not None:
            squares[number] = _square(item, f"items.{number}", how, channels).transpose(2, 0, 1)
    shape = (len(items), channels)
    mean, std = (torch.tensor(facts[name], dtype=torch.float32).expand(shape) for name in ("mean", "std"))
    return {"pixels": torch.from_numpy(squares), "mean": mean, "std": std}


def _square(item: Any, param: str, how: tuple[int, str], channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if not isinstance(item, bytes):
        raise DataError("invalid_input", _NEEDED, param)
    try:
        return pictures.fitted(pictures.decode(item, channels, how[0]), *how)
    except DataError as error:
        raise DataError(error.code, error.message, param) from error


def facts_of(folder: Path) -> dict[str, Any]:
    """Those of a model folder or of a prepared one."""
    config = folder / "config.json"
    if not config.exists():
        facts: dict[str, Any] = shards.read_meta(folder)["facts"]
        return facts
    loaded: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))["facts"]
    return loaded
