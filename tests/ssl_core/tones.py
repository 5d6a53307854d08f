"""Sounds made by the tests: tones in noise, as sound files and as a dataset folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from numpy.typing import NDArray

from ssl_core.modalities.audio import AudioModality
from tests.ssl_core import datasets

RATE = 2000
# Whole windows of sound: in silence every pixel is the same, and with it the sign of every unit, whose rounding would
# then decide the gradient of a whole stretch.
AUDIO = AudioModality(sample_rate=RATE, seconds=0.32, mels=16, crop_min=1.0)


def tone(
    frequency: float = 300.0, seconds: float = 0.2, *, rate: int = RATE, rise: float = 0.0, seed: int = 0
) -> NDArray[np.float64]:
    """(samples,) a sine of amplitude a half that rises by `rise` Hz a second, in a little noise."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return 0.5 * np.sin(2 * np.pi * (frequency + rise * time / 2) * time) + noise


def sound(samples: Any = None, rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    """A sound file of (samples,) or (samples, channels)."""
    out = io.BytesIO()
    soundfile.write(out, tone(rate=rate) if samples is None else samples, rate, format=format, subtype=subtype)
    return out.getvalue()


def audio_dataset(folder: Path, rows: int = 60, labelled: bool = True, seed: int = 0) -> Path:
    """Clips of 330 to 500 ms: a low tone, a high one, or one that rises."""
    random = np.random.default_rng(seed)
    kinds = {"high": (700, 0), "low": (200, 0), "rising": (250, 2500)}
    names = sorted(kinds)
    labels, clips = [names[row % 3] for row in range(rows)], []
    for row, label in enumerate(labels):
        frequency, rise = kinds[label]
        seconds = float(random.uniform(0.33, 0.5))
        clips.append(sound(tone(frequency * random.uniform(0.9, 1.1), seconds, rise=rise, seed=seed + row)))
    kept: list[str | None] = [*labels] if labelled else [None] * rows
    columns = {
        "audio": clips, "rate": pa.array([RATE] * rows, pa.int32()), "channels": pa.array([1] * rows, pa.int32()),
        "label": pa.array(kept, pa.string()), "source": [f"toy.zip:{row}.wav" for row in range(rows)],
    }  # fmt: skip
    numbers = {"sample_rate": RATE, "usual_milliseconds": 490}
    return datasets.write_dataset(folder, columns, {"modality": "audio", "channels": 1, "numbers": numbers})
