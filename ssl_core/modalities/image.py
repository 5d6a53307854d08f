"""Images: square pictures of one size, grey or colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_core.errors import SpecError
from ssl_core.modalities.base import Column, Examined, Modality, Source, Unit

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.data.archives import Member
    from ssl_core.spec import DatasetFacts


def _half(settings: dict[str, Any]) -> int:
    """Of the side of the encoder's pictures: a whole number of patches wherever these have an even number of them."""
    return max(4, int(settings.get("size", 32)) // 2)


class ImageModality(Modality):
    """Preparation and augmentation settings of images.

    Views: `plain` (centre crop), `light` (a shift by up to an eighth, and a flip), `crop` (random resized crop and
    flip), `global` (the augmentation of SimCLR, Chen et al. 2020, https://arxiv.org/abs/2002.05709) and `local` (the
    same of a smaller part, to a smaller picture: multi-crop, Caron et al. 2020, https://arxiv.org/abs/2006.09882), all
    normalised by the dataset's mean and deviation.
    """

    name: Literal["image"] = "image"
    size: int = Field(default=32, ge=8, le=512, description="side of the square that the encoder sees, in pixels")
    channels: Literal[1, 3] = Field(default=3, description="1 = grey, 3 = colour; pictures are converted")
    fit: Literal["crop", "stretch"] = Field(
        default="crop", description="how a picture that is no square becomes one: its middle, or all of it, squeezed"
    )
    crop_min: float = Field(
        default=0.2, ge=0.01, le=1, description="`crop`, `global`: least share of the area in a crop"
    )
    crop_max: float = Field(default=1.0, ge=0.01, le=1, description="`crop`, `global`: greatest share")
    local_size: int = Field(
        default_factory=_half, ge=4, le=512, description="`local`: side in pixels; left out: half of `size`"
    )
    local_min: float = Field(default=0.05, ge=0.01, le=1, description="`local`: least share of the area; DINO: 0.05")
    local_max: float = Field(default=0.4, ge=0.01, le=1, description="`local`: greatest share; DINO: 0.4")
    flip: bool = Field(default=True, description="mirror half of the pictures; off for digits and writing")
    jitter: float = Field(default=0.5, ge=0, le=1, description="`global`, `local`: strength of colour jitter; 0 = none")
    jitter_probability: float = Field(default=0.8, ge=0, le=1)
    grey_probability: float = Field(default=0.2, ge=0, le=1, description="share of such pictures made grey")
    blur_probability: float = Field(
        default=0.0, ge=0, le=1, description="share of such pictures blurred; SimCLR: 0.5, none at 32 px"
    )

    formats: ClassVar[tuple[str, ...]] = (".zip", ".tar", ".tar.gz", ".tgz", ".parquet")
    columns: ClassVar[dict[str, Column]] = {
        "image": Column(
            usual=("image", "picture", "img"), media=("image/jpeg", "image/jpg", "image/png", "image/webp")
        )
    }
    families: ClassVar[tuple[str, ...]] = ("convnet", "resnet", "vit")
    batches: ClassVar[dict[Unit, tuple[int, int]]] = {"document": (256, 512)}
    measures: ClassVar[tuple[str, ...]] = ("width", "height", "channels")
    views: ClassVar[dict[str, Unit]] = dict.fromkeys(("plain", "light", "crop", "global", "local"), "document")

    @model_validator(mode="after")
    def _crop_range(self) -> ImageModality:
        if self.crop_min > self.crop_max:
            raise ValueError(f"crop_min {self.crop_min} is greater than crop_max {self.crop_max}")
        if self.local_min > self.local_max:
            raise ValueError(f"local_min {self.local_min} is greater than local_max {self.local_max}")
        if self.local_size > self.size:
            raise ValueError(f"local_size {self.local_size} is greater than size {self.size}")
        return self

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """By the signature; two letters of it may also begin a text."""
        from ssl_core.data import pictures, sniff

        return pictures.kind_of(head) is not None and not sniff.is_text(head)

    @classmethod
    def from_member(cls, member: Member) -> dict[str, bytes]:
        """A picture file; see `ssl_core.data.picture_rows.from_member`."""
        from ssl_core.data import picture_rows

        return {"image": picture_rows.from_member(member)}

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> dict[str, bytes]:
        """A picture file; see `ssl_core.data.picture_rows.from_value`."""
        from ssl_core.data import picture_rows

        return {"image": picture_rows.from_value(values["image"])}

    @classmethod
    def examine(cls, content: Mapping[str, bytes]) -> Examined:
        """Lengths are the shorter sides in pixels. Every picture is decoded once, as a proof."""
        from ssl_core.data import picture_rows

        return picture_rows.examine(content["image"])

    @classmethod
    def facts(cls, lengths: array[int], measures: Mapping[str, array[int]]) -> dict[str, Any]:
        """Median `width` and `height`; `channels` is 1 where every picture is grey, else 3."""
        from ssl_core.data.profile import spread

        sides = {name: spread(measures[name])["median"] for name in ("width", "height")}
        return {**sides, "channels": max(measures["channels"])}

    @classmethod
    def suited(cls, dataset: DatasetFacts) -> ImageModality:
        """The pictures' own size up to 64 px; grey pictures are not mirrored, since they are mostly writing, digits or
        scans; of pictures under 16 px a crop must keep a third."""
        side = max(8, min(64, dataset.width, dataset.height))
        channels = dataset.channels or 3
        look: dict[str, Any] = {"size": side, "channels": channels, "flip": channels == 3}
        if side < 16:
            look |= {"crop_min": 0.35, "jitter": 0.0, "grey_probability": 0.0}
        return cls.model_validate(look)

    @classmethod
    def near(cls, sketches: list[Any]) -> NDArray[np.bool_]:
        """See `ssl_core.data.duplicates.near_pictures`."""
        from ssl_core.data import duplicates

        return duplicates.near_pictures(sketches)

    def prepare(self, dataset: Path, out: Path, tokenizer: Path | None, progress: Callable[[int, int], None]) -> None:
        """See `ssl_core.data.image_shards.prepare`; a tokenizer means nothing here."""
        from ssl_core.data import image_shards

        image_shards.prepare(self, dataset, out, progress)

    def open(self, prepared: Path) -> Source:
        """An `ImageSource`."""
        from ssl_core.data.image_shards import ImageSource

        return ImageSource(prepared)

    def view(self, name: str, raw: Mapping[str, Tensor], seeds: Tensor, index: int = 0) -> Tensor:
        """(B, channels, size, size) float32, normalised; `local`: (B, channels, local_size, local_size)."""
        from ssl_core.data import image_views

        if name == "plain":
            return image_views.plain(raw, self.size)
        return image_views.RANDOM[name](raw, seeds, index, self)

    def collate(self, items: list[Any], prepared: Path) -> Mapping[str, Tensor]:
        """From the bytes of picture files; see `ssl_core.data.image_views.collate`."""
        from ssl_core.data import image_views

        return image_views.collate(items, prepared)

    def default_backbone(self, size: str) -> EncoderSpec:
        """A small conv net (without a stride for pictures under 16 px), a ResNet-18 or a ResNet-50."""
        from ssl_core.backbones import BACKBONES

        small = "convnet-tiny" if self.size < 16 else "convnet"
        names = {"tiny": small, "small": small, "base": "resnet18", "large": "resnet50"}
        return BACKBONES[f"image-{names[size]}"]

    def check(self, backbone: EncoderSpec, dataset: DatasetFacts) -> None:
        """Pictures are cut to the square, never blown up to it (squeezed ones may be), and patches fill it."""
        from ssl_core.backbones import patch_grid

        smallest = min(dataset.width, dataset.height)
        if smallest and self.size > smallest and self.fit == "crop":
            found = f"{dataset.width} x {dataset.height}"
            text = f"modality.size {self.size} is larger than the pictures ({found}); at most {smallest} fits"
            raise SpecError("infeasible_config", text, "modality.size")
        if backbone.family == "vit":
            patch_grid(backbone, self.size, self.size)

    def slots(self, view: str) -> int:
        """Pixels."""
        return (self.local_size if view == "local" else self.size) ** 2
