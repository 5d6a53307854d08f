"""What an exported model is tried with: the same random inputs as a public model takes them and as ours does.

Needs torch. B = 3 samples, T token slots, S samples of sound.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssl_core.answer_heads import Head
from ssl_core.batch import Tokens
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.dual import Dual
from ssl_core.errors import SpecError
from ssl_core.inference import LoadedModel

BATCH = 3
TOLERANCE = 1e-4
"""Greatest difference of an export's outputs from ours that is let through, in float32."""
_DIGITS = 1e-5


class Measured(NamedTuple):
    """What an export was found to compute.

    Attributes:
        difference: greatest absolute difference of its outputs from ours.
        greatest: of our outputs.
    """

    difference: float
    greatest: float

    @property
    def same(self) -> bool:
        """Within `TOLERANCE`; of outputs above 10, whose last digits of float32 are coarser, within 1e-5 of them."""
        return self.difference <= max(TOLERANCE, _DIGITS * self.greatest)


def measured(pairs: list[tuple[Tensor, Tensor]]) -> Measured:
    """Of ours and theirs, of one shape each."""
    return Measured(
        max(float((ours - theirs).abs().max()) for ours, theirs in pairs),
        max(float(ours.abs().max()) for ours, _ in pairs),
    )


class Graph(nn.Module):
    """A model as a function of plain tensors: what an ONNX file is of.

    Attributes:
        inputs: names of the arguments of `forward`, in order.
        outputs: names of what it returns, in order.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, encoder: Encoder, head: Head | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, None if head is None else head.answers
        self.each_token = head is not None and head.each_token
        self.outputs = ("last_hidden_state", "pooler_output" if head is None else head.output)

    def _answers(self, hidden: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return hidden, pooled if self.head is None else self.head(hidden if self.each_token else pooled)


class TextGraph(Graph):
    """Token ids and a mask, (B, T) each, as public models take them."""

    inputs = ("input_ids", "attention_mask")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D), and (B, D) or (B, classes)."""
        tokens = as_tokens(input_ids, attention_mask)
        return self._answers(self.encoder.encode(tokens), self.encoder(tokens))


class PlainGraph(Graph):
    """Pictures (B, C, H, W) or sounds (B, S)."""

    inputs = ("pixel_values",)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D), and (B, D) or (B, classes)."""
        return self._answers(self.encoder.encode(pixel_values), self.encoder(pixel_values))


class WaveGraph(PlainGraph):
    """Sounds (B, S)."""

    inputs = ("input_values",)

    def forward(self, input_values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D), and (B, D) or (B, classes)."""
        return super().forward(input_values)


class WholeGraph(Graph):
    """Pictures (B, C, H, W), through a task that reads more of its encoder than one vector (`Task.whole`)."""

    inputs = ("pixel_values",)

    def __init__(self, model: LoadedModel, whole: nn.Module) -> None:
        super().__init__(model.nets.encoder, None)
        self.whole, self.outputs = whole, whole.outputs  # type: ignore[assignment]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """What the task names."""
        told: tuple[Tensor, ...] = self.whole(pixel_values)
        return told


class PairGraph(Graph):
    """Texts and pictures, B of each."""

    inputs = ("input_ids", "attention_mask", "pixel_values")

    def __init__(self, encoder: Encoder, head: Head | None) -> None:
        super().__init__(encoder, head)
        self.outputs = ("text_embeds", "image_embeds" if head is None else head.output)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) of the texts, and (B, D) or (B, classes) of the pictures."""
        assert isinstance(self.encoder, Dual)
        texts = self.encoder.of_texts(as_tokens(input_ids, attention_mask))
        return self._answers(texts, self.encoder.of_images(pixel_values))


def as_tokens(input_ids: Tensor, attention_mask: Tensor) -> Tokens:
    """Rows of one document each, (B, T), from ids and a mask that is 1 where there is a token."""
    real = attention_mask > 0
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    return Tokens(input_ids, torch.where(real, 0, -1).int(), positions)


def head_of(model: LoadedModel) -> Head | None:
    """What its task answers with; None where it has no task, or one whose answers are more than a function of the
    encoder's outputs."""
    return None if model.task is None else model.task.head(model.nets)


def graph_of(encoder: Encoder, head: Head | None) -> Graph:
    """The graph of its family. Raises SpecError `export_unsupported`."""
    family = encoder.spec.family
    kinds: dict[str, type[Graph]] = {
        "transformer": TextGraph, "dual": PairGraph, "wave": WaveGraph,
        **dict.fromkeys(("vit", "convnet", "resnet"), PlainGraph),
    }  # fmt: skip
    if family not in kinds:
        raise SpecError("export_unsupported", f"a {family} is exported in the native format alone", "format")
    return kinds[family](encoder, head).eval()


def example(graph: Graph, longer: int = 0) -> tuple[Tensor, ...]:
    """Arguments for `graph`, always the same ones; `longer` makes batch and text longer by as much."""
    facts: dict[str, Any] = graph.encoder.facts
    generator = torch.Generator().manual_seed(1 + longer)
    made: dict[str, Tensor] = {}
    if "input_ids" in graph.inputs:
        made |= _texts(facts.get("text", facts), longer, generator)
        if isinstance(graph.encoder, Dual) and graph.encoder.text.spec.pooling == "last":
            _ended(made, graph.encoder.text)
    if "pixel_values" in graph.inputs:
        shown = facts.get("image", facts)
        size = (shown["channels"], shown.get("height", shown["size"]), shown.get("width", shown["size"]))
        made["pixel_values"] = torch.randn(BATCH + longer, *size, generator=generator)
    if "input_values" in graph.inputs:
        made["input_values"] = torch.randn(BATCH + longer, facts["samples"], generator=generator)
    return tuple(made[name] for name in graph.inputs)


def _ended(made: dict[str, Tensor], tower: Encoder) -> None:
    """As public text towers are fed: the entry that ends a text is the last one that they read. One that is not causal
    is read to the end of the row, fillers and all."""
    if tower.spec.attention == "full":
        made["attention_mask"] = torch.ones_like(made["attention_mask"])
    last = made["attention_mask"].sum(1, keepdim=True) - 1
    if "sep_id" in tower.facts:
        made["input_ids"] = made["input_ids"].scatter(1, last, int(tower.facts["sep_id"]))


def _texts(facts: dict[str, Any], longer: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Rows of several lengths, no special entry among them."""
    length = min(int(facts["max_length"]), 12 + longer)
    special = {facts[name] for name in ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id") if name in facts}
    plain = torch.tensor([at for at in range(int(facts["vocab_size"])) if at not in special][:30_000])
    ids = plain[torch.randint(len(plain), (BATCH + longer, length), generator=generator)]
    lengths = (length - 2 * torch.arange(BATCH + longer)).clamp(min=3)
    real = torch.arange(length) < lengths[:, None]
    return {"input_ids": torch.where(real, ids, facts.get("pad_id", 0)), "attention_mask": real.long()}
