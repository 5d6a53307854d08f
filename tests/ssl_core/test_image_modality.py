"""Images: decoding of every allowed kind of file, storage, and the settings of the views."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import ValidationError

from ssl_core.data import image_shards, pictures
from ssl_core.errors import DataError
from ssl_core.modalities.image import ImageModality
from tests.ssl_core.uploads import picture, take, zipped


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    """What Pillow makes of a file."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_allowed_format_is_decoded_as_pillow_does(format: str) -> None:
    data = picture(format=format, **({"lossless": True} if format == "WEBP" else {}))
    assert pictures.kind_of(data) == format
    np.testing.assert_array_equal(pictures.decode(data, 3), pixels(data))


def test_jpeg_is_decoded_within_a_grey_level_or_two() -> None:
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)).resize((60, 40))
    data = saved(smooth, "JPEG", quality=95)
    difference = pictures.decode(data).astype(int) - pixels(data).astype(int)
    assert abs(difference).max() <= 3


def test_a_large_jpeg_may_come_smaller_but_not_below_the_asked_side() -> None:
    data = picture(size=(640, 400), format="JPEG")
    found = pictures.examine(data, None, 64)
    assert (found.width, found.height) == (640, 400)
    assert 64 <= min(found.array.shape[:2]) < 130


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_orientation_is_undone_as_pillow_does(orientation: int, format: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, format, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    found = pictures.examine(data)
    assert found.array.shape == expected.shape == (found.height, found.width, 3)
    assert abs(found.array.astype(int) - expected.astype(int)).max() <= 3


def test_alpha_lies_on_white() -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (255, 0, 0, 128))
    image.putpixel((1, 0), (0, 0, 0, 0))
    found = pictures.decode(saved(image))[0].tolist()
    assert found[1] == [255, 255, 255]
    assert found[0][0] == 255 and abs(found[0][1] - 127) <= 1


def test_palettes_become_their_colours_also_with_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for place in range(3):
        image.putpixel((place, 0), place)
    assert pictures.decode(saved(image))[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    clear = pictures.decode(saved(image, transparency=1))
    assert clear[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_sixteen_bits_keep_their_high_byte() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    assert pictures.decode(saved(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_real_pixels_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        pictures.decode(saved(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"))
    assert caught.value.code == "unsupported_type"


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("CMYK", 3)])
def test_grey_has_one_channel_and_the_rest_three(mode: str, channels: int) -> None:
    data = picture(mode=mode, format="JPEG")
    assert pictures.decode(data).shape == (16, 24, channels)
    assert pictures.decode(data, 1).shape == (16, 24, 1)
    assert pictures.decode(data, 3).shape == (16, 24, 3)


def test_one_bit_is_grey() -> None:
    found = pictures.decode(saved(Image.new("1", (4, 3), 1)))
    assert found.shape == (3, 4, 1) and (found == 255).all()


def test_kept_formats_are_stored_as_they_came_and_others_as_png_of_the_same_pixels() -> None:
    kept, other = picture(format="JPEG"), picture(format="BMP")
    assert pictures.stored(kept) is kept
    assert pictures.kind_of(pictures.stored(other)) == "PNG"
    np.testing.assert_array_equal(pictures.decode(pictures.stored(other)), pictures.decode(other))


def test_the_square_is_the_middle() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    assert (pictures.square(wide, 10) == 200).all()
    assert pictures.square(wide, 5).shape == (5, 5, 3)
    already = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    assert pictures.square(already, 8) is already


@pytest.mark.parametrize(
    ("size", "width", "height", "side"), [(32, 32, 32, 32), (32, 36, 500, 32), (32, 37, 500, 37), (224, 500, 375, 256)]
)
def test_large_pictures_are_stored_with_a_margin(size: int, width: int, height: int, side: int) -> None:
    assert image_shards.storage_side(size, width, height) == side


def prepared(tmp_path: Path, settings: ImageModality, side: int = 16) -> image_shards.ImageSource:
    files = {f"{number}.png": picture(number, size=(side, side)) for number in range(12)}
    dataset = take(tmp_path, "x.zip", zipped(files)).folder
    settings.prepare(dataset, tmp_path / "shards", None, lambda done, total: None)
    source = settings.open(tmp_path / "shards")
    assert isinstance(source, image_shards.ImageSource)
    return source


def raw_of(source: image_shards.ImageSource, count: int = 12) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in source.read("document", np.arange(count)).items()}


def test_shards_hold_the_pictures_and_their_mean_and_deviation(tmp_path: Path) -> None:
    source = prepared(tmp_path, ImageModality(size=16))
    stored = source.read("document", np.array([3, 0]))["pixels"]
    np.testing.assert_array_equal(stored[0].transpose(1, 2, 0), pictures.decode(picture(3, size=(16, 16))))
    everything = np.stack([pictures.decode(picture(n, size=(16, 16))) for n in range(12)]) / 255
    np.testing.assert_allclose(source.facts["mean"], everything.mean((0, 1, 2)), atol=1e-9)
    np.testing.assert_allclose(source.facts["std"], everything.std((0, 1, 2)), atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 40])
@pytest.mark.parametrize("view", ["plain", "light", "crop", "global", "local"])
def test_views_have_the_asked_shape(tmp_path: Path, channels: int, side: int, view: str) -> None:
    settings = ImageModality(size=16, channels=channels, blur_probability=0.5, local_size=12)
    source = prepared(tmp_path, settings, side)
    made = settings.view(view, raw_of(source), torch.arange(12))
    seen = 12 if view == "local" else 16
    assert made.shape == (12, channels, seen, seen)
    assert settings.slots(view) == seen**2
    assert made.dtype == torch.float32
    assert torch.isfinite(made).all()


def test_plain_pictures_have_mean_zero_and_deviation_one(tmp_path: Path) -> None:
    settings = ImageModality(size=16)
    made = settings.view("plain", raw_of(prepared(tmp_path, settings)), torch.zeros(12, dtype=torch.int64))
    torch.testing.assert_close(made.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(made.std((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


def test_with_everything_off_the_global_view_is_the_plain_one(tmp_path: Path) -> None:
    off = {"crop_min": 1.0, "flip": False, "jitter": 0.0, "grey_probability": 0.0}
    settings = ImageModality(size=16, **off)
    raw = raw_of(prepared(tmp_path, settings))
    seeds = torch.arange(400)
    raw = {name: values[torch.arange(400) % 12] for name, values in raw.items()}
    made, plain = settings.view("global", raw, seeds), settings.view("plain", raw, seeds)
    # The aspect ratio is still drawn; where it is near 1 the crop is the whole picture.
    close = (made - plain).abs().amax((1, 2, 3)) < 0.1
    assert close.any()


def test_a_local_view_shows_as_small_a_part_as_asked() -> None:
    # Each pixel's colour is its place, so the spread of a crop tells its area.
    place = torch.arange(32, dtype=torch.uint8) * 8
    both = torch.stack([place[:, None].expand(32, 32), place.expand(32, 32), place.expand(32, 32)])
    raw = {"pixels": both.repeat(500, 1, 1, 1), "mean": torch.zeros(500, 3), "std": torch.ones(500, 3)}
    settings = ImageModality(size=32, jitter=0.0, grey_probability=0.0, flip=False, local_min=0.1, local_max=0.3)
    made = settings.view("local", raw, torch.arange(500)) * 255 / 8
    assert made.shape == (500, 3, 16, 16)
    height = (made[:, 0, -1, 0] - made[:, 0, 0, 0]) * 16 / 15
    width = (made[:, 1, 0, -1] - made[:, 1, 0, 0]) * 16 / 15
    area = height * width / 32**2
    assert float(area.min()) > 0.08 and float(area.max()) < 0.33
    assert abs(float(area.mean()) - 0.2) < 0.02


def test_a_crop_keeps_the_colours() -> None:
    red = torch.tensor([250, 10, 10], dtype=torch.uint8)[:, None, None].expand(3, 16, 16).repeat(20, 1, 1, 1)
    raw = {"pixels": red, "mean": torch.zeros(20, 3), "std": torch.ones(20, 3)}
    made = ImageModality(size=16).view("crop", raw, torch.arange(20))
    torch.testing.assert_close(made, red / 255, atol=1e-5, rtol=0)


def test_the_local_side_is_half_of_the_picture_where_none_is_given() -> None:
    assert ImageModality(size=224).local_size == 112
    assert ImageModality(size=32).local_size == 16
    assert ImageModality(size=8).local_size == 4


@pytest.mark.parametrize("view", ["light", "crop", "global", "local"])
def test_flip_mirrors_half_of_the_pictures_and_can_be_switched_off(tmp_path: Path, view: str) -> None:
    ramp = torch.linspace(0, 255, 16).to(torch.uint8).expand(1, 3, 16, 16).repeat(1000, 1, 1, 1)
    raw = {"pixels": ramp, "mean": torch.zeros(1000, 3), "std": torch.ones(1000, 3)}
    for flip, low, high in ((True, 0.45, 0.55), (False, 0.0, 0.0)):
        settings = ImageModality(size=16, flip=flip, jitter=0.0, crop_min=0.8)
        made = settings.view(view, raw, torch.arange(1000))
        mirrored = (made[:, 0, 4, 1] > made[:, 0, 4, -2]).float().mean()
        assert low <= mirrored <= high


def test_grey_and_blur_come_as_often_as_asked() -> None:
    noise = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8).repeat(1000, 1, 1, 1)
    raw = {"pixels": noise, "mean": torch.zeros(1000, 3), "std": torch.ones(1000, 3)}
    fixed: dict[str, Any] = {"size": 24, "jitter": 0.0, "crop_min": 1.0}
    made = ImageModality(**fixed, grey_probability=0.3).view("global", raw, torch.arange(1000))
    grey = ((made[:, 0] - made[:, 1]).abs().amax((1, 2)) < 1e-4).float().mean()
    assert abs(float(grey) - 0.3) < 0.05
    plain = ImageModality(**fixed, grey_probability=0.0).view("global", raw, torch.arange(1000))
    blurred = ImageModality(**fixed, grey_probability=0.0, blur_probability=0.5).view("global", raw, torch.arange(1000))
    changed = ((plain - blurred).abs().amax((1, 2, 3)) > 1e-4).float().mean()
    assert 0.2 < float(changed) <= 0.55  # a blur far below a pixel changes nothing


def test_a_served_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    settings = ImageModality(size=16)
    prepared(tmp_path, settings)
    with pytest.raises(DataError) as caught:
        settings.collate([picture(), b"hello"], tmp_path / "shards")
    assert (caught.value.code, caught.value.param) == ("unsupported_type", "items.1")


@pytest.mark.parametrize(
    "settings",
    [
        {"crop_min": 0.9, "crop_max": 0.5},
        {"local_min": 0.5},
        {"size": 16, "local_size": 24},
        {"size": 4},
        {"channels": 2},
        {"jitter": 2.0},
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImageModality(**settings)
