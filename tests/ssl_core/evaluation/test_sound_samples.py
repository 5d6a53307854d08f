"""What a run over sounds shows: spectrograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ssl_core.datasets import TINY_IMAGE
from tests.ssl_core.evaluation.test_samples import shown
from tests.ssl_core.tones import AUDIO, audio_dataset
from tests.ssl_core.toys import ENCODERS


@pytest.mark.parametrize(
    ("objective", "family", "name", "columns"),
    [("masked_spectrogram", "vit", "reconstructions", 3), ("simclr", "convnet", "views", 2)],
)
def test_spectrograms_stand_beside_each_other(
    tmp_path: Path, objective: str, family: str, name: str, columns: int
) -> None:
    backbone = TINY_IMAGE if family == "convnet" else ENCODERS[family]
    found = shown(tmp_path / "run", objective, AUDIO, backbone, audio_dataset(tmp_path / "data", rows=20))
    with Image.open(found[name]) as picture:
        scale = 64 // AUDIO.mels
        assert picture.width == columns * AUDIO.frames * scale and picture.height % 64 == 0
        parts = np.split(np.asarray(picture), columns, axis=1)
    assert all(part.std() > 10 for part in parts)
    assert any((part != parts[0]).any() for part in parts[1:])
