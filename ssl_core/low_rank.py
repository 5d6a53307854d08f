"""Low-rank adaptation: which encoders it fits, and how little of them it trains. Imports without torch.

Hu et al. 2021, "LoRA: Low-rank adaptation of large language models", https://arxiv.org/abs/2106.09685: a weight W stays
as it is and W + alpha / rank B A is used, with A (rank, in), B (out, rank) and B = 0 at the start. `ssl_core.adapters`
does that to an encoder.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from ssl_core.backbones import GATED, EncoderSpec
from ssl_core.errors import SpecError

FAMILIES = ("transformer", "vit", "wave")
"""Encoders whose layers are attention and a feed-forward; of an encoder of pairs its tower for pictures may be one."""

Rank = Annotated[int, Field(ge=1, le=1024, description="lora: rank of what is added to each matrix of the layers")]
Alpha = Annotated[float, Field(gt=0, le=1e4, description="lora: alpha / rank multiplies what is added")]


class LowRank(NamedTuple):
    """The size of an adapter, and its strength: alpha / rank multiplies it."""

    rank: int
    alpha: float


def check(low: LowRank, backbone: EncoderSpec) -> None:
    """Whether the encoder can be adapted so.

    Raises:
        SpecError: `backbone_mismatch`, its layers are convolutions, `param` `task.mode`; `rank_too_large`, an adapter
            would be no smaller than the smallest matrix, `param` `task.rank`.
    """
    tower = adapted(backbone)
    if tower.family not in FAMILIES:
        text = (
            f"mode lora adapts the layers of encoders of family {', '.join(FAMILIES[:-1])} or {FAMILIES[-1]}; "
            f"{tower.name} is a {tower.family}, which has none: use mode full or linear_probe"
        )
        raise SpecError("backbone_mismatch", text, "task.mode")
    least = min(min(inside, outside) for inside, outside in matrices(tower))
    if low.rank > least:
        text = f"rank {low.rank} is over {least}, the smaller side of the smallest matrix of {tower.name}"
        raise SpecError("rank_too_large", text, "task.rank")


def adapted(backbone: EncoderSpec) -> EncoderSpec:
    """The encoder whose layers are adapted: of pairs the tower for pictures, else itself."""
    return backbone if backbone.image is None else backbone.image


def matrices(backbone: EncoderSpec) -> list[tuple[int, int]]:
    """Channels into and out of each adapted matrix of a layer: queries, keys, values, output, feed-forward."""
    width, shared = backbone.width, backbone.width // backbone.heads * (backbone.key_value_heads or backbone.heads)
    hidden = round(backbone.mlp_ratio * width)
    raising = [(width, hidden)] * (2 if backbone.mlp in GATED else 1)
    return [(width, width), (width, shared), (width, shared), (width, width), *raising, (hidden, width)]


def adapter_parameters(low: LowRank, backbone: EncoderSpec) -> int:
    """Weights of all adapters of an encoder, exact: the only ones of it that are trained."""
    tower = adapted(backbone)
    return tower.depth * low.rank * sum(inside + outside for inside, outside in matrices(tower))
