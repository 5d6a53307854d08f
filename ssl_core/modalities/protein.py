"""Proteins: chains of residues in the alphabet of ESM-2."""

from __future__ import annotations

import math
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
    from ssl_core.batch import Tokens
    from ssl_core.data.intake import Reading, Upload
    from ssl_core.spec import DatasetFacts


class ProteinModality(Modality):
    """Preparation settings of proteins. The vocabulary is fixed (`ssl_core.data.residues`): 33 entries.

    Views: `packed` (rows of `max_length` residues, several chains in one, none padded but the last row), `plain` (the
    beginning of a chain) and `span` (a random stretch of a chain; the first and the second view of a sample lie on two
    sides of a random cut, so they do not overlap).
    """

    name: Literal["protein"] = "protein"
    max_length: int = Field(
        default=512, ge=8, le=8192, description="residues in a row, and of a chain that are read; ESM-2: 1,022"
    )
    span_min: int = Field(default=32, ge=1, le=8192, description="`span`: fewest residues, where the chain has them")
    span_max: int = Field(default=128, ge=1, le=8192, description="`span`: most residues")

    formats: ClassVar[tuple[str, ...]] = (".fasta", ".fa", ".faa", ".jsonl", ".csv", ".tsv", ".parquet")
    columns: ClassVar[dict[str, Column]] = {
        "protein": Column(usual=("protein", "sequence", "protein_sequence", "seq", "residues", "primary"))
    }
    part: ClassVar[str] = "residue"
    has_lengths: ClassVar[bool] = True
    families: ClassVar[tuple[str, ...]] = ("transformer",)
    batches: ClassVar[dict[Unit, tuple[int, int]]] = {"row": (16, 128), "document": (64, 256)}
    views: ClassVar[dict[str, Unit]] = {"packed": "row", "plain": "document", "span": "document"}

    @model_validator(mode="after")
    def _spans_fit(self) -> ProteinModality:
        if not self.span_min <= self.span_max <= self.max_length:
            raise ValueError(
                f"span_min <= span_max <= max_length must hold, got {self.span_min}, {self.span_max}, {self.max_length}"
            )
        return self

    @classmethod
    def read(cls, upload: Upload, kind: str) -> Reading:
        """FASTA, whatever its ending; see `ssl_core.data.fasta.read`."""
        from ssl_core.data import fasta

        return fasta.read(upload, cls, "protein")

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> dict[str, bytes]:
        """A chain; see `ssl_core.data.residues.clean`."""
        from ssl_core.data import residues

        return {"protein": residues.clean(values["protein"])}

    @classmethod
    def examine(cls, content: Mapping[str, bytes]) -> Examined:
        """Lengths are residues."""
        from ssl_core.data import residues

        return residues.examine(content["protein"])

    @classmethod
    def facts(cls, lengths: array[int], measures: Mapping[str, array[int]]) -> dict[str, Any]:
        """`characters` are the residues of all rows; `numbers.usual_length`: 19 of 20 chains are no longer."""
        from ssl_core.data.profile import spread

        return {"characters": sum(lengths), "numbers": {"usual_length": spread(lengths)["p95"]}}

    @classmethod
    def suited(cls, dataset: DatasetFacts) -> ProteinModality:
        """Rows that hold 19 of 20 chains whole, from 64 to 1,024 residues."""
        usual = dataset.numbers.get("usual_length", 512)
        longest = max(64, min(1024, math.ceil(usual / 64) * 64))
        return cls(max_length=longest, span_min=min(32, longest // 4), span_max=min(128, longest // 2))

    @classmethod
    def near(cls, sketches: list[Any]) -> NDArray[np.bool_]:
        """Chains that agree in about 19 of 20 residues; see `ssl_core.data.duplicates.residue_sketch`."""
        from ssl_core.data import duplicates

        return duplicates.near_texts(sketches, duplicates.SIMILAR_CHAINS)

    @classmethod
    def parts(cls, content: Mapping[str, bytes]) -> int:
        """Residues."""
        return len(content["protein"])

    def first_tokens(self, items: list[Any], folder: Path) -> list[NDArray[np.int64]]:
        """A residue is a token."""
        from ssl_core.data import residues

        return residues.places(items)

    def prepare(self, dataset: Path, out: Path, tokenizer: Path | None, progress: Callable[[int, int], None]) -> None:
        """See `ssl_core.data.protein_shards.prepare`; the alphabet is fixed, so a tokenizer means nothing here."""
        from ssl_core.data import protein_shards

        protein_shards.prepare(self.max_length, dataset, out, progress)

    def open(self, prepared: Path) -> Source:
        """A `TokenSource`."""
        from ssl_core.data.token_shards import TokenSource

        return TokenSource(prepared, self.max_length)

    def view(self, name: str, raw: Mapping[str, Tensor], seeds: Tensor, index: int = 0) -> Tokens:
        """`Tokens` of (B, T): T is `max_length` for `packed`, and at most that for `plain`, `span_max` for `span`."""
        from ssl_core.data import residues, text_views

        if name == "packed":
            return text_views.packed(raw)
        if name == "plain":
            return text_views.plain(raw, self.max_length, residues.PAD)
        if name == "span":
            return text_views.span(raw, seeds, index, (self.span_min, self.span_max), residues.PAD)
        raise KeyError(name)

    def collate(self, items: list[Any], prepared: Path) -> Mapping[str, Tensor]:
        """From strings of residues; see `ssl_core.data.protein_views.collate`."""
        from ssl_core.data import protein_views

        return protein_views.collate(items, self.max_length)

    def default_backbone(self, size: str) -> EncoderSpec:
        """The Transformer trunk of that size with rotary positions; `large` is that of text."""
        from ssl_core.backbones import BACKBONES

        return BACKBONES[f"protein-{size}"]

    def check(self, backbone: EncoderSpec, dataset: DatasetFacts) -> None:
        """Rows fit the trunk's positions."""
        if self.max_length > backbone.max_positions:
            text = f"modality.max_length {self.max_length} is over the backbone's {backbone.max_positions} positions"
            raise SpecError("infeasible_config", text, "modality.max_length")

    def samples(self, dataset: DatasetFacts, unit: Unit) -> int:
        """Rows are full; a document is a chain."""
        if unit == "document":
            return dataset.rows
        return max(1, math.ceil(dataset.characters / self.max_length))

    def tokens(self, view: str, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows are full; of a chain the two spans have a half each, and at most the mean of their bounds."""
        if view == "packed":
            return lengths * 0 + self.max_length
        if view == "span":
            return (lengths / 2).clip(1, (self.span_min + self.span_max) / 2)
        return lengths.clip(1, self.max_length)

    def mean_length(self, dataset: DatasetFacts) -> float:
        """Residues of a mean chain."""
        return max(1.0, dataset.characters / max(1, dataset.rows))

    def slots(self, view: str) -> int:
        """Residues."""
        return self.span_max if view == "span" else self.max_length
