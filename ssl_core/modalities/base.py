"""The base of every modality: formats in, memory-mapped shards, named views out. Imports without torch.

The walk of a sample: uploaded file -> `ingest` (canonical dataset folder, docs/contracts.md §3) -> `prepare`
(shards, once per dataset and settings) -> `open` (a `Source` over memory maps) -> the loader slices raw arrays ->
`view` makes a learner's inputs from them, batched, on the training device, seeded per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from ssl_core.values import Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_core.batch import Inputs
    from ssl_core.spec import EncoderSpec

Raw = Mapping[str, "NDArray[Any]"]
"""Arrays of one slice; first dimension is the number of samples."""
Unit = Literal["row", "document"]
"""What is one sample of a view: a packed row of tokens, or a whole document or image."""


class Source(Protocol):
    """Prepared data, opened: every read is a slice of a memory map."""

    facts: dict[str, Any]
    """What an encoder must know: vocabulary size and special ids, or channels and size."""
    labels: NDArray[np.int32] | None
    """(documents,) class indices; -1 = no label."""
    classes: list[str]

    def count(self, unit: Unit) -> int:
        """Samples of that unit."""

    def lengths(self) -> NDArray[np.int64]:
        """(documents,) size of each in tokens (1 for images): for length buckets and token budgets."""

    def read(self, unit: Unit, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None = None) -> Raw:
        """The raw arrays of those samples.

        Args:
            unit: what `indices` count.
            indices: (B,) sample numbers, any order, repeats allowed.
            seeds: (B,) one a sample, only for a random view: a document longer than the reading window is then
                read from a random start, else always from its beginning.
        """


class Modality(Value):
    """A frozen value: its fields are its preparation settings (lengths, vocabulary, picture size)."""

    name: str
    formats: ClassVar[tuple[str, ...]]
    """File endings it ingests."""
    views: ClassVar[dict[str, Unit]]
    """Every named view and its unit. `plain` is the deterministic one used to evaluate and to serve."""

    def prepare(self, dataset: Path, out: Path, tokenizer: Path | None, progress: Callable[[int, int], None]) -> None:
        """Write shards of a canonical dataset folder to `out`. `tokenizer`: reuse this one instead of training it."""
        raise NotImplementedError

    def open(self, prepared: Path) -> Source:
        """Memory-map what `prepare` wrote."""
        raise NotImplementedError

    def view(self, name: str, raw: Mapping[str, Tensor], seeds: Tensor, index: int = 0) -> Inputs:
        """Batched tensor code on the device of `raw`.

        Args:
            name: one of `views`.
            raw: what `Source.read` gave, as tensors.
            seeds: (B,) int64, the same for every view of the batch (`Batch.seeds`, nothing mixed in).
            index: position of this view in the learner's `views`. All randomness comes from (seeds, index), so two
                views of one sample differ, and may be chosen together (two spans that do not overlap).
        """
        raise NotImplementedError

    def collate(self, items: list[Any], prepared: Path) -> Mapping[str, Tensor]:
        """Raw tensors for `view("plain", …)` from what a caller of the embedding endpoint sends (strings, pictures).

        `prepared` is a model folder: it holds the tokenizer and the facts."""
        raise NotImplementedError

    def default_backbone(self, size: str) -> EncoderSpec:
        """The usual encoder of this modality at `tiny`, `small`, `base` or `large`."""
        raise NotImplementedError
