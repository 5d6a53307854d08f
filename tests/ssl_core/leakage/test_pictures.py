"""Which pictures are near duplicates of each other."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ssl_core.leakage.pictures import Pictures
from tests.ssl_core.datasets import png

KIND = Pictures()


def sketch(array: Any) -> Any:
    return KIND.sketch({"image": png(np.asarray(array).clip(0, 255).astype(np.uint8))})[0][None]


def alike(one: Any, other: Any) -> float:
    return float(KIND.estimate(sketch(one), sketch(other))[0])


@pytest.fixture
def scene() -> Any:
    """(32, 32, 3) of smooth colour fields."""
    small = np.random.default_rng(3).integers(40, 216, (7, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC), dtype=float)


def horizon(seed: int) -> Any:
    """Sky over sea, and something small of its own."""
    grey = np.where(np.arange(32)[:, None] < 16, 190.0, 70.0) + np.zeros((32, 32))
    draw = np.random.default_rng(seed)
    grey += np.kron(draw.normal(0, 14, (16, 16)), np.ones((2, 2)))
    return np.stack([grey] * 3, axis=-1)


def test_another_contrast_and_a_pixel_aside_are_near_duplicates(scene: Any) -> None:
    assert alike(scene, np.roll(0.9 * scene + 12, 1, axis=1)) > 0.7


def test_a_strong_jpeg_is_a_near_duplicate(scene: Any) -> None:
    out = io.BytesIO()
    Image.fromarray(scene.astype(np.uint8)).save(out, "JPEG", quality=30)
    assert alike(scene, np.asarray(Image.open(out))) > 0.8


def test_two_pictures_of_a_horizon_are_not_though_their_grey_values_agree() -> None:
    one, other = horizon(1), horizon(2)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9
    assert alike(one, other) < 0.7


def test_the_same_edges_in_other_colours_are_not(scene: Any) -> None:
    assert alike(scene, scene[:, :, ::-1] * np.array([0.4, 1.0, 1.6])) == 0


def test_among_digits_more_is_asked_for_than_among_scenes(scene: Any) -> None:
    digits = np.concatenate([sketch(16 * each) for each in load_digits().images[:200]])
    draw = np.random.default_rng(0)
    scenes = np.concatenate([sketch(np.kron(draw.integers(0, 255, (8, 8, 3)), np.ones((4, 4, 1)))) for _ in range(200)])
    assert KIND.bar(scenes) < 0.8
    assert KIND.bar(digits) > 0.93


def test_of_a_single_picture_nothing_is_usual(scene: Any) -> None:
    assert KIND.bar(sketch(scene)) == KIND.least
