"""What a family of public models is: a value, in one file of `ssl_core/interop/hf`. Imports without torch.

A family says which `config.json` it reads, how that becomes one of our encoders and how an encoder becomes it again,
and, tensor by tensor, where each of ours stands in theirs. `bert.py` is the one to copy. Nothing here is code of the
model: what a family cannot express is refused in words, never approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssl_core.errors import SpecError
from ssl_core.interop.transforms import SAME, Transform

if TYPE_CHECKING:
    from ssl_core.backbones import EncoderSpec
    from ssl_core.modalities.base import Modality

UNSUPPORTED, NOT_EXPRESSIBLE = "unsupported_config", "export_unsupported"


@dataclass(frozen=True)
class Public:
    """What a public folder says beside its tensors.

    Attributes:
        config: `config.json`.
        specials: ids of its tokenizer's special entries (`ssl_core.data.tokenizer.specials`); empty without one.
        extras: its other small JSON files by name, e.g. `preprocessor_config.json`.
    """

    config: Mapping[str, Any]
    specials: Mapping[str, int] = field(default_factory=dict)
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of the config, at least 0. Raises SpecError `unsupported_config`."""
        value = self.config.get(name, default)
        if type(value) is not int or value < 0:
            raise unsupported(name, value, "a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number of the config, at least 0. Raises SpecError `unsupported_config`."""
        value = self.config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e30:
            raise unsupported(name, value, "a number")
        return float(value)

    def one_of(self, name: str, known: Mapping[Any, Any], default: Any = None) -> Any:
        """What `known` says for the config's value. Raises SpecError `unsupported_config`."""
        value = self.config.get(name, default)
        if not isinstance(value, str | int | float | bool | None) or value not in known:
            raise unsupported(name, value, " or ".join(map(repr, known)))
        return known[value]


@dataclass(frozen=True)
class Shape:
    """One of our encoders, without its weights.

    Attributes:
        backbone: its shape.
        modality: the settings with which it reads data.
        facts: what it must know of its input (`Encoder.facts`).
    """

    backbone: EncoderSpec
    modality: Modality
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One tensor of ours and what of theirs it is made of.

    Attributes:
        ours: a name of `Encoder.state_dict()`.
        theirs: one or more of their names, behind the family's prefix.
        how: there and back, bit by bit.
    """

    ours: str
    theirs: tuple[str, ...]
    how: Transform = SAME


@dataclass(frozen=True)
class Ignored:
    """Tensors of theirs that we leave out by design: a regular expression over whole names behind the prefix."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Headed:
    """A trunk of theirs with a linear layer on its pooled vector, as one of their own classes says it.

    Attributes:
        model_class: its name in transformers, `XForSequenceClassification` and the like.
        tensors: all of them, the trunk's under its prefix.
        config: what their config must say beside the trunk's.
        note: what whoever downloads it should know; empty = nothing.
    """

    model_class: str
    tensors: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


Classify = Callable[[Shape, Mapping[str, Any], Any, Any], Headed]
"""From a shape, the trunk's tensors (their names, no prefix), and `weight` (classes, D) and `bias` (classes,) of a
linear layer on our pooled vector. Raises SpecError `export_unsupported` where their head cannot compute that."""


@dataclass(frozen=True)
class Writes:
    """The decoder that stands beside a family's encoder, as our `Decoder` of the encoder's shape.

    Attributes:
        model_class: the transformers class of both with an output layer, which is the token table.
        prefix: what stands before the names of its trunk.
        depth: layers by their config; 0 where it is no decoder of the encoder's shape, and is left out of an import.
        rows: every tensor of our decoder of so many layers, in any order.
        write: our shape, with a decoder of so many layers and a table of so many entries, to their config; None where
            this family is not that shape.
    """

    model_class: str
    prefix: str
    depth: Callable[[Public], int]
    rows: Callable[[EncoderSpec, int], list[Row]]
    write: Callable[[Shape, int, int], dict[str, Any] | None]


@dataclass(frozen=True)
class Family:
    """A public family.

    Attributes:
        model_types: values of `model_type` in `config.json` that it reads; it writes the first.
        model_class: the transformers class of the bare trunk, which an export names.
        prefixes: what stands before the trunk's names in files of models with a head, such as `bert.`.
        read: their config to our shape. Raises SpecError `unsupported_config`, naming the field.
        write: our shape to their config (without `architectures`), None or SpecError `export_unsupported` where this
            family is not that shape. `read(write(shape))` must be the shape again, `BACKBONES` name apart.
        rows: every tensor of our encoder, in any order.
        ignored: what else their files hold.
        classify: how a classifier on the trunk is written (`ssl_core.interop.classifiers`); None where they have none.
        tag: the same of a classifier of every token.
        inputs: what their forward takes, and so which of our encoders it can be: `text`, `pixels`, `wave` or `pair`.
        exported: False where their own forward is not the encoder's, so that exports are of another family.
        feed: how an export is checked: from our graph's inputs by name to their forward's.
        output: and by which of theirs: a tensor a token, or `pooler_output` where only that goes through the last norm.
        decoder: where its models have one, and ours keeps it.
        scale: of pairs, what their loss multiplies cosines with, as rows of `ssl_core.pair_losses.Scale`.
    """

    model_types: tuple[str, ...]
    model_class: str
    prefixes: tuple[str, ...]
    read: Callable[[Public], Shape]
    write: Callable[[Shape], dict[str, Any] | None]
    rows: Callable[[EncoderSpec], list[Row]]
    ignored: tuple[Ignored, ...] = ()
    classify: Classify | None = None
    tag: Classify | None = None
    inputs: str = "text"
    decoder: Writes | None = None
    exported: bool = True
    feed: Callable[[dict[str, Any]], dict[str, Any]] = dict
    output: str = "last_hidden_state"
    scale: tuple[Row, ...] = ()


def unsupported(name: str, value: object, allowed: str) -> SpecError:
    """The refusal of one field of `config.json`."""
    told = f"{value!r}"[:120]
    return SpecError(UNSUPPORTED, f"config.json: {name} is {told}; this platform reads {allowed}", f"config.{name}")


def inexpressible(family: str, why: str) -> SpecError:
    """The refusal of an export."""
    return SpecError(NOT_EXPRESSIBLE, f"{family} has no such model: {why}", "format")


def layered(depth: int, rows: Mapping[str, tuple[tuple[str, ...], Transform]], inside: str) -> list[Row]:
    """The rows of `layers.0` to `layers.<depth - 1>`.

    Args:
        depth: how many.
        rows: ours within a layer -> theirs within a layer, and how.
        inside: where their layers stand, `encoder.layer`.
    """
    return [
        Row(f"layers.{at}.{ours}", tuple(f"{inside}.{at}.{name}" for name in theirs), how)
        for at in range(depth)
        for ours, (theirs, how) in rows.items()
    ]


def with_bias(places: Mapping[str, tuple[tuple[str, ...], Transform]], bias: bool = True) -> dict[str, Any]:
    """Modules to tensors: each place gets `.weight` and, where there are biases, `.bias`."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return {
        f"{ours}.{kind}": (tuple(f"{name}.{kind}" for name in theirs), how)
        for ours, (theirs, how) in places.items()
        for kind in kinds
    }
