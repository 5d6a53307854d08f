"""Pictures with texts that say what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_core.data.tokenizer import TokenizerKind
from ssl_core.modalities.base import Column, Examined, Modality, Source, Unit
from ssl_core.modalities.image import ImageModality
from ssl_core.modalities.text import TextModality

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Pairs
    from ssl_core.data.archives import Member
    from ssl_core.data.captions import Frame
    from ssl_core.spec import DatasetFacts

_SMALL_POOL = 100_000_000
"""Characters."""


class ImageTextModality(Modality):
    """Preparation and augmentation settings of pictures with texts; each is as the image and text modalities say.

    Views: `plain` (the middle of the picture and the beginning of the text) and `pair` (the picture cropped, and its
    colours changed, at random; the text less `text_dropout` of its tokens). Pictures are not mirrored unless asked:
    words may say left or right.
    """

    name: Literal["image_text"] = "image_text"
    size: int = Field(default=64, ge=8, le=512, description="side of the square that the encoder sees, in pixels")
    channels: Literal[1, 3] = Field(default=3, description="1 = grey, 3 = colour; pictures are converted")
    crop_min: float = Field(default=0.5, ge=0.01, le=1, description="`pair`: least share of the area in a crop")
    crop_max: float = Field(default=1.0, ge=0.01, le=1, description="`pair`: greatest share")
    flip: bool = Field(default=False, description="mirror half of the pictures")
    jitter: float = Field(default=0.0, ge=0, le=1, description="`pair`: strength of colour jitter; 0 = none")
    max_length: int = Field(default=32, ge=8, le=8192, description="tokens that are read of a text; CLIP: 77")
    vocab_size: int = Field(
        default=8192, ge=512, le=131_072, description="entries of the tokenizer, at most; of bytes there are always 261"
    )
    tokenizer: TokenizerKind = Field(
        default="bpe",
        description="byte-level BPE, WordPiece as in BERT, bytes, or the pool's most frequent characters",
    )
    lowercase: bool = Field(default=True, description="fold case before tokenizing, as CLIP does")
    special_tokens: bool = Field(
        default=False,
        description="put [CLS] and [SEP], or an imported tokenizer's own such entries, around a text (CLIP)",
    )
    filler: str = Field(
        default="",
        max_length=64,
        description="entry of the tokenizer, such as [PAD], that fills texts up to max_length and is read (SigLIP)",
    )
    text_dropout: float = Field(
        default=0.0, ge=0, le=0.9,
        description="`pair`: share of a text's tokens that are left out, others each time, never all; 0 = none",
    )  # fmt: skip

    formats: ClassVar[tuple[str, ...]] = ImageModality.formats
    columns: ClassVar[dict[str, Column]] = {
        "image": ImageModality.columns["image"],
        "text": Column(usual=("caption", "text", "description")),
    }
    measures: ClassVar[tuple[str, ...]] = ImageModality.measures
    partial: ClassVar[bool] = True
    families: ClassVar[tuple[str, ...]] = ("dual",)
    batches: ClassVar[dict[Unit, tuple[int, int]]] = {"document": (256, 1024)}
    views: ClassVar[dict[str, Unit]] = {"plain": "document", "pair": "document"}

    @model_validator(mode="after")
    def _crop_range(self) -> ImageTextModality:
        if self.crop_min > self.crop_max:
            raise ValueError(f"crop_min {self.crop_min} is greater than crop_max {self.crop_max}")
        return self

    @property
    def entries(self) -> int:
        """Of the tokenizer, at most."""
        return self.sides()[1].entries

    @property
    def frame(self) -> Frame:
        """How texts are read."""
        from ssl_core.data.captions import Frame

        return Frame(self.max_length, self.special_tokens, self.filler)

    def sides(self) -> tuple[ImageModality, TextModality]:
        """The settings of each side, as its own modality has them."""
        shared = {name: getattr(self, name) for name in ("size", "channels", "crop_min", "crop_max", "flip", "jitter")}
        words = {name: getattr(self, name) for name in ("max_length", "vocab_size", "tokenizer", "lowercase")}
        span = min(8, self.max_length)
        return (
            ImageModality.model_validate({**shared, "grey_probability": 0.0}),
            TextModality.model_validate({**words, "span_min": span, "span_max": span}),
        )

    @classmethod
    def from_pair(cls, member: Member, told: Mapping[str, Any]) -> dict[str, bytes]:
        """A picture file, and its text in the archive's table of contents."""
        return {**TextModality.from_row({"text": told["text"]}), **ImageModality.from_member(member)}

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> dict[str, bytes]:
        """The bytes of a picture file, and a text."""
        return {**ImageModality.from_row(values), **TextModality.from_row(values)}

    @classmethod
    def examine(cls, content: Mapping[str, bytes]) -> Examined:
        """Lengths are characters of the text; see `ssl_core.data.pair_rows.examine`."""
        from ssl_core.data import pair_rows

        return pair_rows.examine(content)

    @classmethod
    def facts(cls, lengths: array[int], measures: Mapping[str, array[int]]) -> dict[str, Any]:
        """Those of pictures and those of texts."""
        return {**ImageModality.facts(lengths, measures), **TextModality.facts(lengths, measures)}

    @classmethod
    def suited(cls, dataset: DatasetFacts) -> ImageTextModality:
        """Pictures of their own size up to 32 px, a vocabulary that the texts can fill, one case in a small pool.

        Larger ones cost their area in time.
        """
        side = max(8, min(32, dataset.width, dataset.height))
        size = max(512, min(16_384, dataset.characters // 40 // 512 * 512))
        known = {"size": side, "channels": dataset.channels or 3, "vocab_size": size}
        return cls.model_validate({**known, "lowercase": dataset.characters < _SMALL_POOL})

    @classmethod
    def near(cls, sketches: list[Any]) -> NDArray[np.bool_]:
        """See `ssl_core.data.pair_rows.near`."""
        from ssl_core.data import pair_rows

        return pair_rows.near(sketches)

    def prepare(self, dataset: Path, out: Path, tokenizer: Path | None, progress: Callable[[int, int], None]) -> None:
        """See `ssl_core.data.pair_shards.prepare`; the tokenizer is learned from the texts."""
        from ssl_core.data import pair_shards

        pair_shards.prepare(self.sides(), dataset, out, tokenizer, progress, self.frame)

    def open(self, prepared: Path) -> Source:
        """A `PairSource`."""
        from ssl_core.data.pair_shards import PairSource

        return PairSource(prepared, self.max_length)

    def view(self, name: str, raw: Mapping[str, Tensor], seeds: Tensor, index: int = 0) -> Pairs:
        """`Pairs` of pictures (B, channels, size, size) and texts of at most `max_length` tokens."""
        from ssl_core.data import pair_views

        if name == "plain":
            return pair_views.plain(raw, self.sides())
        if name == "pair":
            return pair_views.pair(raw, seeds, index, self.sides(), self.text_dropout)
        raise KeyError(name)

    def collate(self, items: list[Any], prepared: Path) -> Mapping[str, Tensor]:
        """From pictures, texts or both; see `ssl_core.data.pair_views.collate`."""
        from ssl_core.data import pair_views

        return pair_views.collate(items, prepared, self.frame)

    def default_backbone(self, size: str) -> EncoderSpec:
        """The usual encoders of both sides at that size, and a shared space."""
        from ssl_core.backbones import BACKBONES

        pair = BACKBONES[f"pair-{size}"]
        image = self.sides()[0].default_backbone(size)
        return pair if pair.image == image else pair.model_copy(update={"name": "custom", "image": image})

    def check(self, backbone: EncoderSpec, dataset: DatasetFacts) -> None:
        """Pictures are cut to the square, never blown up to it; texts fit the trunk's positions."""
        image, text = self.sides()
        if backbone.image is not None and backbone.text is not None:
            image.check(backbone.image, dataset)
            text.check(backbone.text, dataset)

    def slots(self, view: str) -> int:
        """Pixels."""
        return self.size**2
