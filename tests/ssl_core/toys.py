"""One toy for each modality: small settings, small data, and a small encoder of each family.

A new modality adds its row here, a new encoder family its shape; the contract tests of modalities, objectives and tasks
do the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.data import rows
from ssl_core.modalities.base import Modality
from tests.ssl_core import datasets, tones

ENCODERS: dict[str, dict[str, Any]] = {
    "transformer": datasets.TINY_TEXT,
    "convnet": datasets.TINY_IMAGE,
    "vit": {
        "name": "custom", "family": "vit", "width": 32, "depth": 2, "heads": 2, "patch_size": 2, "class_tokens": 1,
        "positions": "sincos", "embedding_norm": False,
    },
    "wave": {
        "name": "custom", "family": "wave", "width": 32, "depth": 2, "heads": 2, "positions": "convolution",
        "position_kernel": 4, "position_groups": 4, "stem_width": 32, "embedding_norm": False,
    },
    "dual": datasets.TINY_PAIR,
}  # fmt: skip
"""By family; a family that is missing has another one of its modality tested in its place."""
LEARNERS: dict[str, dict[str, Any]] = {
    # Normalised patches of noisy toys are all noise: nothing to learn by heart in a few steps.
    "mae": {"normalise": False},
    "masked_spectrogram": {"normalise": False},
    "contacts": {"channels": 8, "blocks": 2},
    "detection": {"size": 8, "head_width": 16},
}
"""Hyperparameters that toys need, by the learner's name; the rest are the defaults."""
SHAPES: dict[str, dict[str, Any]] = {"next_token": {"attention": "causal", "embedding_norm": False}}
"""What a learner asks of its encoder, by the learner's name."""


@dataclass(frozen=True)
class Toy:
    """Settings, and a writer of a dataset folder (labelled unless told otherwise)."""

    modality: Modality
    write: Callable[..., Path]

    def items(self, dataset: Path, count: int) -> list[Any]:
        """Its first rows as a caller of the embedding endpoint would send them."""
        columns = list(self.modality.columns)
        batch = next(rows.batches(dataset, columns))
        if len(columns) == 1:
            return list(batch[columns[0]][:count])
        return [{name: batch[name][row] for name in columns} for row in range(count)]

    def backbone(self, wanted: tuple[str, ...] = ()) -> dict[str, Any]:
        """A small encoder of the first family that the modality has and a learner wants."""
        return next(
            ENCODERS[family]
            for family in self.modality.families
            if family in ENCODERS and (not wanted or family in wanted)
        )


TOYS: dict[str, Toy] = {
    "text": Toy(datasets.TEXT, datasets.text_dataset),
    "image": Toy(datasets.IMAGE, datasets.image_dataset),
    "protein": Toy(datasets.PROTEIN, datasets.protein_dataset),
    "image_text": Toy(datasets.IMAGE_TEXT, datasets.image_text_dataset),
    "audio": Toy(tones.AUDIO, tones.audio_dataset),
}
