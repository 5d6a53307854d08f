"""The base of every modality: formats in, memory-mapped shards, named views out. Imports without torch.

The walk of a sample: uploaded file -> `ingest` (canonical dataset folder, docs/contracts.md §3) -> `prepare`
(shards, once per dataset and settings) -> `open` (a `Source` over memory maps) -> the loader slices raw arrays ->
`view` makes a learner's inputs from them, batched, on the training device, seeded per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from ssl_core.values import Value

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec
    from ssl_core.batch import Inputs
    from ssl_core.data.archives import Member
    from ssl_core.data.intake import Reading, Upload
    from ssl_core.spec import DatasetFacts

Raw = Mapping[str, "NDArray[Any]"]
"""Arrays of one slice; first dimension is the number of samples."""
Unit = Literal["row", "document"]
"""What is one sample of a view: a packed row of tokens, or a whole document or image."""


@dataclass(frozen=True)
class Column:
    """A column of content: strings, or whole files such as pictures.

    Attributes:
        usual: what uploads call it, best first.
        media: of files, the media types that a data URI of an inference request may have; empty = strings.
    """

    usual: tuple[str, ...]
    media: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examined:
    """One good row, looked at by its modality.

    Attributes:
        columns: its canonical columns: those of `Modality.columns` and of `Modality.measures`.
        length: its size, for the profile's `lengths`.
        sketch: makes what `Modality.near` compares; asked of the first 100,000 rows only.
        preview: makes what a person would look at; asked of the first 20 rows only.
    """

    columns: dict[str, Any]
    length: int
    sketch: Callable[[], Any]
    preview: Callable[[], dict[str, Any]]


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
    """A frozen value: its fields are its preparation settings (lengths, vocabulary, picture size).

    The class methods are its part of ingest: the readers in `ssl_core.data` know files, tables and archives, and ask
    the modality what one row is.
    """

    name: str
    formats: ClassVar[tuple[str, ...]]
    """File endings it ingests; one that no reader of the platform knows goes to `read`."""
    columns: ClassVar[dict[str, Column]]
    """Its content in a canonical row, by column; one column has the modality's own name."""
    measures: ClassVar[tuple[str, ...]] = ()
    """Whole numbers that a canonical row has beside its content, by column."""
    catch_all: ClassVar[bool] = False
    """Takes lines, and tables whose columns tell nothing. One modality is so: text."""
    families: ClassVar[tuple[str, ...]]
    """Encoder families that read it."""
    batches: ClassVar[dict[Unit, tuple[int, int]]] = {"row": (32, 256), "document": (128, 512)}
    """The recipe's batch size of each unit, on a CPU and on a GPU."""
    epochs: ClassVar[int] = 30
    """The recipe's passes over a pool, where they fit into its most steps."""
    partial: ClassVar[bool] = False
    """An item to embed may have some of the columns only."""
    part: ClassVar[str] = ""
    """What a row's content consists of that can have a tag each, such as `word`; empty = nothing."""
    has_lengths: ClassVar[bool] = False
    """Samples are sequences of tokens: budgets and rates count these, not samples."""
    views: ClassVar[dict[str, Unit]]
    """Every named view and its unit. `plain` is the deterministic one used to evaluate and to serve."""

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Whether a file that begins so, in an archive, is one of its own and of no other modality."""
        return False

    @classmethod
    def read(cls, upload: Upload, kind: str) -> Reading:
        """Rows of a file whose ending, `kind`, is its own. Raises DataError."""
        raise NotImplementedError

    @classmethod
    def from_member(cls, member: Member) -> dict[str, bytes]:
        """The content of a file in an archive, by column, strings as UTF-8. Raises DataError."""
        raise NotImplementedError

    @classmethod
    def from_pair(cls, member: Member, told: Mapping[str, Any]) -> dict[str, bytes]:
        """The same of a file and what the archive's table of contents tells of it, by our columns that are no files.

        Only of a modality that has columns of both sorts. Raises DataError."""
        raise NotImplementedError

    @classmethod
    def from_row(cls, values: Mapping[str, Any]) -> dict[str, bytes]:
        """The same of a table's row, given by our columns as the table's reader found it. Raises DataError."""
        raise NotImplementedError

    @classmethod
    def examine(cls, content: Mapping[str, bytes]) -> Examined:
        """Check and measure one row's content, as the two methods above give it. Raises DataError."""
        raise NotImplementedError

    @classmethod
    def facts(cls, lengths: array[int], measures: Mapping[str, array[int]]) -> dict[str, Any]:
        """Numbers of the whole dataset that recipes ask for: fields of `DatasetFacts`, given each row's.

        What no field there is for goes into `{"numbers": {...}}`."""
        return {}

    @classmethod
    def suited(cls, dataset: DatasetFacts) -> Self:
        """The recipe's settings for a dataset; here: the defaults."""
        return cls.model_validate({})

    @classmethod
    def near(cls, sketches: list[Any]) -> NDArray[np.bool_]:
        """(rows,) True where a row is nearly one that came before; here: none is."""
        import numpy as np

        return np.zeros(len(sketches), dtype=np.bool_)

    @classmethod
    def parts(cls, content: Mapping[str, bytes]) -> int:
        """How many `part`s a row's content has."""
        raise NotImplementedError

    def first_tokens(self, items: list[Any], folder: Path) -> list[NDArray[np.int64]]:
        """(parts,) of each item, at which token each of its parts begins; never descending.

        Args:
            items: contents of canonical rows, or what `collate` takes.
            folder: of prepared shards or a model: it holds the tokenizer.
        """
        raise NotImplementedError

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

        `prepared` is a model folder: it holds the tokenizer and the facts. A tensor `tokens` (B,) says how much is read
        of each item where neither `lengths` does nor one is right."""
        raise NotImplementedError

    def default_backbone(self, size: str) -> EncoderSpec:
        """The usual encoder of this modality at `tiny`, `small`, `base` or `large`."""
        raise NotImplementedError

    def check(self, backbone: EncoderSpec, dataset: DatasetFacts) -> None:
        """Raises SpecError `infeasible_config` where they do not fit the encoder or the dataset; here: they do."""

    def samples(self, dataset: DatasetFacts, unit: Unit) -> int:
        """Samples of a dataset in that unit, as far as its facts tell; here: a row of the dataset is one."""
        return dataset.rows

    def tokens(self, view: str, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean tokens that `view` has of documents of these lengths (tokens), where the modality `has_lengths`."""
        return lengths

    def mean_length(self, dataset: DatasetFacts) -> float:
        """Tokens of a mean document, as far as the dataset's facts tell; here: one."""
        return 1.0

    def slots(self, view: str) -> int:
        """What an encoder keeps activations for in a sample of `view`: token slots, pixels, or points of a signal."""
        raise NotImplementedError
