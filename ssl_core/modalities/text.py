"""Text: documents as tokens of a vocabulary learned from the pool."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_core.data.tokenizer import BYTE_ENTRIES, TokenizerKind
from ssl_core.errors import SpecError
from ssl_core.modalities.base import Column, Examined, Modality, Source, Unit

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Tokens
    from ssl_core.data.archives import Member
    from ssl_core.spec import DatasetFacts


_CHARACTERS_PER_TOKEN: dict[TokenizerKind, float] = {"bpe": 4.0, "wordpiece": 4.0, "bytes": 1.0, "characters": 1.0}
_SMALL_POOL = 100_000_000
"""Characters."""


class TextModality(Modality):
    """Preparation settings of text.

    Views: `packed` (rows of `max_length` tokens, several documents in one, none padded but the last row), `plain` (the
    beginning of a document) and `span` (a random stretch of a document; the first and the second view of a sample lie
    on two sides of a random cut, so they do not overlap: Giorgi et al. 2021, DeCLUTR, https://arxiv.org/abs/2006.03659).
    """

    name: Literal["text"] = "text"
    max_length: int = Field(default=128, ge=8, le=8192, description="tokens in a row, and of a document that are read")
    vocab_size: int = Field(
        default=8192, ge=512, le=131_072, description="entries of the tokenizer, at most; of bytes there are always 261"
    )
    tokenizer: TokenizerKind = Field(
        default="bpe",
        description="byte-level BPE, WordPiece as in BERT, bytes, or the pool's most frequent characters",
    )
    lowercase: bool = Field(default=False, description="fold case before tokenizing")
    special_tokens: bool = Field(
        default=False, description="put the tokenizer's own special entries around a document; imported models have it"
    )
    span_min: int = Field(default=32, ge=1, le=8192, description="`span`: fewest tokens, where the document has them")
    span_max: int = Field(default=64, ge=1, le=8192, description="`span`: most tokens")

    formats: ClassVar[tuple[str, ...]] = (
        ".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".zip", ".tar", ".tar.gz", ".tgz",
    )  # fmt: skip
    columns: ClassVar[dict[str, Column]] = {
        "text": Column(
            usual=("text", "content", "document", "sentence", "body", "words", "tokens", "source", "source_text")
        )
    }
    catch_all: ClassVar[bool] = True
    part: ClassVar[str] = "word"
    has_lengths: ClassVar[bool] = True
    families: ClassVar[tuple[str, ...]] = ("transformer",)
    views: ClassVar[dict[str, Unit]] = {"packed": "row", "plain": "document", "span": "document"}

    @model_validator(mode="after")
    def _spans_fit(self) -> TextModality:
        if not self.span_min <= self.span_max <= self.max_length:
            raise ValueError(
                f"span_min <= span_max <= max_length must hold, got {self.span_min}, {self.span_max}, {self.max_length}"
            )
        return self

    @property
    def entries(self) -> int:
        """Of the tokenizer, at most."""
        return BYTE_ENTRIES if self.tokenizer == "bytes" else self.vocab_size

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Whatever can be UTF-8."""
        from ssl_core.data import sniff

        return sniff.is_text(head)

    @classmethod
    def from_member(cls, member: Member) -> dict[str, bytes]:
        """A document; see `ssl_core.data.texts.from_member`."""
        from ssl_core.data import texts

        return {"text": texts.from_member(member)}

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> dict[str, bytes]:
        """A document; see `ssl_core.data.texts.clean`."""
        from ssl_core.data import texts

        return {"text": texts.clean(values["text"])}

    @classmethod
    def examine(cls, content: Mapping[str, bytes]) -> Examined:
        """Lengths are characters."""
        from ssl_core.data import texts

        return texts.examine(content["text"])

    @classmethod
    def facts(cls, lengths: array[int], measures: Mapping[str, array[int]]) -> dict[str, Any]:
        """`characters` of all rows."""
        return {"characters": sum(lengths)}

    @classmethod
    def suited(cls, dataset: DatasetFacts) -> TextModality:
        """A vocabulary that the pool can fill (one entry for about 400 characters, 512 to 16,384), and one case, where
        the pool is too small to learn a word twice."""
        size = max(512, min(16_384, dataset.characters // 400 // 512 * 512))
        return cls(vocab_size=size, lowercase=dataset.characters < _SMALL_POOL, max_length=256)

    @classmethod
    def near(cls, sketches: list[Any]) -> NDArray[np.bool_]:
        """See `ssl_core.data.duplicates.near_texts`."""
        from ssl_core.data import duplicates

        return duplicates.near_texts(sketches)

    @classmethod
    def parts(cls, content: Mapping[str, bytes]) -> int:
        """Words: what white space separates."""
        return len(content["text"].decode("utf-8").split())

    def first_tokens(self, items: list[Any], folder: Path) -> list[NDArray[np.int64]]:
        """See `ssl_core.data.words.first_tokens`."""
        from ssl_core.data import words

        return words.first_tokens(items, folder / "tokenizer.json", self.special_tokens)

    def prepare(self, dataset: Path, out: Path, tokenizer: Path | None, progress: Callable[[int, int], None]) -> None:
        """See `ssl_core.data.text_shards.prepare`."""
        from ssl_core.data import text_shards

        text_shards.prepare(self, dataset, out, tokenizer, progress)

    def open(self, prepared: Path) -> Source:
        """A `TokenSource`."""
        from ssl_core.data.token_shards import TokenSource

        return TokenSource(prepared, self.max_length)

    def view(self, name: str, raw: Mapping[str, Tensor], seeds: Tensor, index: int = 0) -> Tokens:
        """`Tokens` of (B, T): T is `max_length` for `packed`, and at most that for `plain`, `span_max` for `span`."""
        from ssl_core.data import text_views

        if name == "packed":
            return text_views.packed(raw)
        if name == "plain":
            return text_views.plain(raw, self.max_length)
        if name == "span":
            return text_views.span(raw, seeds, index, (self.span_min, self.span_max))
        raise KeyError(name)

    def collate(self, items: list[Any], prepared: Path) -> Mapping[str, Tensor]:
        """From strings or lists of token ids; see `ssl_core.data.text_views.collate`."""
        from ssl_core.data import text_views

        return text_views.collate(items, prepared, self.max_length, self.special_tokens)

    def default_backbone(self, size: str) -> EncoderSpec:
        """The Transformer trunk of that size."""
        from ssl_core.backbones import BACKBONES

        return BACKBONES[f"text-{size}"]

    def check(self, backbone: EncoderSpec, dataset: DatasetFacts) -> None:
        """Rows fit the trunk's positions."""
        if self.max_length > backbone.max_positions:
            most = backbone.max_positions
            text = f"modality.max_length {self.max_length} is over the backbone's max_positions {most}"
            raise SpecError("infeasible_config", text, "modality.max_length")

    def samples(self, dataset: DatasetFacts, unit: Unit) -> int:
        """Rows are predicted from four characters a token, or one where characters or bytes are tokens."""
        if unit == "document":
            return dataset.rows
        return max(1, math.ceil(dataset.characters / _CHARACTERS_PER_TOKEN[self.tokenizer] / self.max_length))

    def tokens(self, view: str, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows are full; of a document the two spans have a half each, and at most the mean of their bounds."""
        if view == "packed":
            return lengths * 0 + self.max_length
        if view == "span":
            return (lengths / 2).clip(1, (self.span_min + self.span_max) / 2)
        return lengths.clip(1, self.max_length)

    def mean_length(self, dataset: DatasetFacts) -> float:
        """Predicted as in `samples`."""
        return max(1.0, dataset.characters / _CHARACTERS_PER_TOKEN[self.tokenizer] / max(1, dataset.rows))

    def slots(self, view: str) -> int:
        """Tokens."""
        return self.span_max if view == "span" else self.max_length
