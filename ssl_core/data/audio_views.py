"""Views of sound, batched on the training device. Needs torch.

B clips, L samples as read, S samples of the encoder's window, M mel bands, F frames.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import spectrograms
from ssl_core.data import audio_shards, shards
from ssl_core.errors import DataError
from ssl_core.rng import normal, uniform

if TYPE_CHECKING:
    from ssl_core.modalities.audio import AudioModality

# Random streams of view 0; view i adds 16 i.
_CROP, _LEVEL, _WARP, _MASK, _NOISE, _STRIDE = 601, 602, 603, 604, 605, 16
_STRIPES = 2
"""Masked stripes of each kind, as in SpecAugment's policies."""


def plain(raw: Mapping[str, Tensor], settings: AudioModality) -> Tensor:
    """The middle of each clip; one shorter than the window lies in its middle, silence on both sides."""
    sounding = raw["sounding"]
    audio = _window(raw["audio"], (sounding - settings.window).div(2, rounding_mode="floor"), sounding, settings)
    return _finished(audio, raw, settings)


def light(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: AudioModality) -> Tensor:
    """Moved by up to an eighth of the window; of a longer clip any part."""
    draw = uniform(seeds, 1, _CROP + _STRIDE * index)[:, 0]
    room = (raw["sounding"] - settings.window).double()
    reach = settings.window / 8
    low = torch.where(room > 0, -reach / 2, room / 2 - reach)
    high = torch.where(room > 0, room + reach / 2, room / 2 + reach)
    first = (low + draw * (high - low)).floor().long()
    return _finished(_window(raw["audio"], first, raw["sounding"], settings), raw, settings)


def random_part(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: AudioModality) -> Tensor:
    """A random stretch of the clip at a random place of the window, otherwise as it is."""
    return _finished(_cropped(raw, seeds, _STRIDE * index, settings), raw, settings)


def random_global(raw: Mapping[str, Tensor], seeds: Tensor, index: int, settings: AudioModality) -> Tensor:
    """A random stretch at another loudness, in noise; log-mel: also stretched in time and pitch, and masked."""
    stream = _STRIDE * index
    audio = _cropped(raw, seeds, stream, settings)
    level = uniform(seeds, 3, _LEVEL + stream)
    gain = 10 ** (-settings.gain_db * level[:, 0] / 20)
    noise = 10 ** (settings.noise_db * level[:, 1] / 20) * (level[:, 2] < settings.noise_probability)
    if settings.representation == "waveform":
        hiss = normal(seeds, settings.window, _NOISE + stream) * (noise * 1e-3)[:, None]
        return _levelled(audio * gain[:, None] + hiss)
    # What noise adds to a mean power is known without drawing it: to a picture it only matters as a floor.
    power = spectrograms.log_mel(audio * gain[:, None], settings.analysis).exp()
    powers = (power + (noise**2 * 1e-6)[:, None, None]).log()
    warped = _warped(powers, seeds, stream, settings)
    return _masked(_normalised(warped, raw), seeds, stream, settings).unsqueeze(1)


RANDOM = {"light": light, "part": random_part, "global": random_global}
"""Random views by name."""


def _window(audio: Tensor, first: Tensor, sounding: Tensor, settings: AudioModality) -> Tensor:
    """(B, S) float from `first` (B,) on, silence outside the clips' own `sounding` samples."""
    at = first[:, None] + torch.arange(settings.window, device=audio.device)
    inside = (at >= 0) & (at < sounding[:, None])
    values = audio.gather(1, at.clamp(0, audio.shape[1] - 1))
    return torch.where(inside, values, 0).float() / 32768


def _cropped(raw: Mapping[str, Tensor], seeds: Tensor, stream: int, settings: AudioModality) -> Tensor:
    """(B, S): a random part of what sounds, at a random place, silence around it."""
    draws = uniform(seeds, 3, _CROP + stream).double()
    sounding = raw["sounding"]
    most = sounding.clamp(max=settings.window).double()
    share = settings.crop_min + (1 - settings.crop_min) * draws[:, 0]
    kept = (most * share).ceil().long()
    first = ((sounding - kept + 1) * draws[:, 1]).floor().long()
    place = ((settings.window - kept + 1) * draws[:, 2]).floor().long()
    audio = _window(raw["audio"], first - place, first + kept, settings)
    at = torch.arange(settings.window, device=audio.device)
    return audio * (at >= place[:, None])


def _finished(audio: Tensor, raw: Mapping[str, Tensor], settings: AudioModality) -> Tensor:
    """(B, 1, M, F) normalised log-mel, or (B, S) of mean 0 and variance 1."""
    if settings.representation == "waveform":
        return _levelled(audio)
    return _normalised(spectrograms.log_mel(audio, settings.analysis), raw).unsqueeze(1)


def _levelled(audio: Tensor) -> Tensor:
    """Each of mean 0 and variance 1, as wav2vec 2.0 reads it."""
    centred = audio - audio.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-7).sqrt()


def _normalised(powers: Tensor, raw: Mapping[str, Tensor]) -> Tensor:
    return (powers - raw["mean"][:, None, None]) / raw["std"][:, None, None]


def _warped(powers: Tensor, seeds: Tensor, stream: int, settings: AudioModality) -> Tensor:
    draws = 2 * uniform(seeds, 3, _WARP + stream) - 1
    time, pitch = 1 + settings.stretch * draws[:, 0], 1 + settings.pitch * draws[:, 1]
    columns = spectrograms.warp_matrix(time, torch.zeros_like(time), powers.shape[2])
    rows = spectrograms.warp_matrix(pitch, settings.pitch / 2 * draws[:, 2], powers.shape[1])
    return torch.bmm(torch.bmm(rows, powers), columns.transpose(1, 2))


def _masked(pictures: Tensor, seeds: Tensor, stream: int, settings: AudioModality) -> Tensor:
    """Stripes of frames and of bands become the mean, 0."""
    draws = uniform(seeds, 4 * _STRIPES, _MASK + stream).view(len(seeds), 2 * _STRIPES, 2)
    hidden = torch.zeros_like(pictures, dtype=torch.bool)
    for at in range(_STRIPES):
        hidden |= spectrograms.stripes(draws[:, at], pictures.shape[2], settings.mask_time)[:, None, :]
        hidden |= spectrograms.stripes(draws[:, _STRIPES + at], pictures.shape[1], settings.mask_bands)[:, :, None]
    return pictures.masked_fill(hidden, 0.0)


def collate(items: list[Any], folder: Path, settings: AudioModality) -> dict[str, Tensor]:
    """Sounds as `AudioSource.read` gives them, from the bytes of files.

    Args:
        items: whole sound files.
        folder: a model folder or a prepared one; its facts hold mean and deviation.
        settings: how they were prepared.

    Raises:
        DataError: as `sounds.decode`, or `invalid_input` where an item is not bytes; `param` is `items.<number>`.
    """
    facts = _facts(folder)
    clips = [_clip(item, f"items.{number}", settings) for number, item in enumerate(items)]
    audio = np.zeros((len(clips), settings.window), dtype=np.int16)
    for row, clip in enumerate(clips):
        audio[row, : len(clip)] = clip
    mean, std = (torch.full((len(clips),), float(facts[name])) for name in ("mean", "std"))
    sounding = torch.tensor([len(clip) for clip in clips], dtype=torch.int64)
    return {"audio": torch.from_numpy(audio), "sounding": sounding, "mean": mean, "std": std}


def _clip(item: Any, param: str, settings: AudioModality) -> NDArray[np.int16]:
    if not isinstance(item, bytes):
        raise DataError("invalid_input", "an audio item is the bytes of a sound file", param)
    try:
        whole = audio_shards.clip_of(item, settings)
    except DataError as error:
        raise DataError(error.code, error.message, param) from error
    ((first, count),) = audio_shards.windows(np.array([len(whole)]), settings.window, None)
    return whole[first : first + count]


def _facts(folder: Path) -> dict[str, Any]:
    config = folder / "config.json"
    if not config.exists():
        facts: dict[str, Any] = shards.read_meta(folder)["facts"]
        return facts
    loaded: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))["facts"]
    return loaded
