"""Each part of the image augmentation against Pillow, colorsys or its formula."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from ssl_core import augment


def random_picture(size: int = 24, seed: int = 0) -> Image.Image:
    # Smooth, so that rounding of the reference to 8 bits between its steps stays small.
    coarse = np.random.default_rng(seed).integers(40, 216, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def tensor(picture: Image.Image) -> Tensor:
    """(1, C, H, W) in 0..1."""
    array = np.asarray(picture, dtype=np.float32).reshape(picture.height, picture.width, -1)
    return torch.from_numpy(array / 255).permute(2, 0, 1)[None]


def difference(ours: Tensor, theirs: Image.Image) -> float:
    """Greatest difference in grey levels of 255."""
    return float((ours - tensor(theirs)).abs().max() * 255)


@pytest.mark.parametrize("box", [(0, 0, 24, 24), (3, 5, 15, 20), (2.5, 1.25, 21.5, 13.0), (10, 10, 14, 14)])
@pytest.mark.parametrize("out", [9, 24, 40])
def test_crop_and_resize_equal_pillows_bilinear(box: tuple[float, float, float, float], out: int) -> None:
    picture = random_picture()
    left, top, right, bottom = (value / 24 for value in box)
    rows = augment.resize_matrix(torch.tensor([top]), torch.tensor([bottom - top]), 24, out)
    columns = augment.resize_matrix(torch.tensor([left]), torch.tensor([right - left]), 24, out)
    ours = augment.resample(tensor(picture), rows, columns)
    assert difference(ours, picture.resize((out, out), Image.Resampling.BILINEAR, box=box)) < 1.01


def test_a_mirrored_resize_is_the_reversed_one() -> None:
    start, length = torch.tensor([0.1, 0.1]), torch.tensor([0.7, 0.7])
    plain, mirrored = augment.resize_matrix(start, length, 16, 10, torch.tensor([False, True]))
    assert torch.equal(plain.flip(0), mirrored) or torch.allclose(plain.flip(0), mirrored, atol=1e-6)
    assert not torch.allclose(plain, mirrored, atol=0.1)


def test_crop_boxes_have_the_asked_area_and_aspect_and_stay_inside() -> None:
    draws = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    top, left, height, width = augment.crop_boxes(draws, (0.08, 0.5)).unbind(1)
    area, ratio = height * width, width / height
    assert area.min() > 0.0799 and area.max() < 0.5001
    assert abs(float(area.mean()) - 0.29) < 0.005
    assert ratio.min() > 0.7499 and ratio.max() < 1.3334
    assert abs(float(ratio.log().mean())) < 0.01
    assert min(top.min(), left.min()) >= 0 and max((top + height).max(), (left + width).max()) <= 1.0001


def test_a_full_crop_is_cut_to_the_picture() -> None:
    boxes = augment.crop_boxes(torch.tensor([[1.0, 1.0, 0.5, 0.5]]), (0.2, 1.0))
    assert boxes[0, 3] == 1 and boxes[0, 2] == pytest.approx(math.sqrt(3 / 4), abs=1e-6)


def transformed(picture: Image.Image, draws: list[float], jitter: augment.Jitter) -> Tensor:
    pixels = tensor(picture)
    matrix, offset = augment.colour_transform(torch.tensor([draws]), augment.mean_luma(pixels), pixels.shape[1], jitter)
    return augment.recolour(pixels, matrix, offset)


ALWAYS = augment.Jitter(strength=1.0, probability=1.1, grey_probability=0.0)


@pytest.mark.parametrize(
    ("place", "enhancer"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
@pytest.mark.parametrize("draw", [0.05, 0.3, 0.6])
def test_each_jitter_equals_pillows_enhancement(place: int, enhancer: type, draw: float) -> None:
    picture = random_picture(seed=place)
    draws = [0.5, 0.5, 0.5, 0.5, 0.0, 1.0]
    draws[place] = draw
    factor = 1 + (2 * draw - 1) * 0.8
    assert difference(transformed(picture, draws, ALWAYS), enhancer(picture).enhance(factor)) < 1.51


def test_brightness_contrast_and_saturation_together_equal_pillows_in_that_order() -> None:
    picture = random_picture(seed=4)
    theirs = picture
    for enhancer, draw in ((ImageEnhance.Brightness, 0.4), (ImageEnhance.Contrast, 0.6), (ImageEnhance.Color, 0.2)):
        theirs = enhancer(theirs).enhance(1 + (2 * draw - 1) * 0.8)
    assert difference(transformed(picture, [0.4, 0.6, 0.2, 0.5, 0.0, 1.0], ALWAYS), theirs) < 3


def test_grey_equals_pillows_l() -> None:
    picture = random_picture(seed=5)
    ours = transformed(picture, [0.5] * 5 + [0.0], augment.Jitter(0.0, 0.0, grey_probability=1.0))
    assert difference(ours, picture.convert("L").convert("RGB")) < 1.01


def test_hue_turns_the_colour_plane_as_colorsys_writes_it() -> None:
    turn = 0.13
    matrix = augment.hue_matrix(torch.tensor([turn]))[0]
    for colour in [(0.5, 0.4, 0.3), (0.2, 0.6, 0.4), (0.3, 0.3, 0.7)]:
        y, i, q = colorsys.rgb_to_yiq(*colour)
        c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
        theirs = colorsys.yiq_to_rgb(y, c * i - s * q, s * i + c * q)
        # colorsys rounds the constants of the standard to two digits.
        np.testing.assert_allclose((matrix @ torch.tensor(colour)).numpy(), theirs, atol=0.015)


def test_hue_keeps_greys_and_luma_and_a_whole_turn_is_nothing() -> None:
    turns = torch.tensor([0.1, -0.2, 0.5, 1.0])
    matrices = augment.hue_matrix(turns)
    torch.testing.assert_close(matrices.sum(-1), torch.ones(4, 3), atol=1e-5, rtol=0)
    luma = torch.tensor(augment.LUMA)
    torch.testing.assert_close(luma @ matrices, luma.expand(4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrices[3], torch.eye(3), atol=1e-5, rtol=0)


def test_jitter_that_is_not_drawn_changes_nothing() -> None:
    picture = random_picture()
    off = transformed(picture, [0.9, 0.1, 0.9, 0.9, 0.81, 0.9], augment.Jitter(1.0, 0.8, 0.2))
    assert difference(off, picture) < 1e-3


def test_a_grey_picture_has_brightness_and_contrast_only() -> None:
    picture = random_picture().convert("L")
    theirs = ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(0.84)).enhance(1.16)
    assert difference(transformed(picture, [0.4, 0.6, 0.0, 0.0, 0.0, 0.0], ALWAYS), theirs) < 2.5


def test_blur_is_the_gaussian_and_zero_is_none() -> None:
    sigma = torch.tensor([1.3, 0.0])
    weights, none = augment.blur_matrix(sigma, 31)
    offsets = np.arange(31) - 15
    gaussian = np.exp(-(offsets**2) / (2 * 1.3**2))
    np.testing.assert_allclose(weights[15].numpy(), gaussian / gaussian.sum(), atol=1e-6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(31))
    assert torch.equal(none, torch.eye(31))


def test_shift_crop_of_no_shift_is_the_picture_and_reflection_is_numpys() -> None:
    picture = torch.arange(36.0).view(1, 1, 6, 6)
    middle = torch.full((1, 2), 0.5)
    same = augment.shift_crop(picture, 6, 2, middle, torch.tensor([False]))
    assert torch.equal(same, picture)
    corner = augment.shift_crop(picture, 6, 2, torch.zeros(1, 2), torch.tensor([True]))
    padded = np.pad(picture[0, 0].numpy(), 2, mode="reflect")
    np.testing.assert_array_equal(corner[0, 0].numpy(), padded[:6, :6][:, ::-1])
    last = augment.shift_crop(picture, 6, 2, torch.full((1, 2), 0.9999), torch.tensor([False]))
    np.testing.assert_array_equal(last[0, 0].numpy(), padded[-6:, -6:])


def test_normalise_is_its_formula() -> None:
    pictures, mean, std = torch.rand(2, 3, 4, 4), torch.rand(2, 3), torch.rand(2, 3) + 0.5
    expected = (pictures - mean[:, :, None, None]) / std[:, :, None, None]
    torch.testing.assert_close(augment.normalise(pictures, mean, std), expected)
