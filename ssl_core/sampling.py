"""How a continuation is drawn. Imports without torch."""

from __future__ import annotations

from pydantic import Field

from ssl_core.values import Value

MAX_TOKENS = 4096


class Sampling(Value):
    """Settings of `ssl_core.generation.continuations`, applied in this order: temperature, `top_k`, `top_p`."""

    max_tokens: int = Field(default=64, ge=1, le=MAX_TOKENS, description="tokens to write, at most")
    temperature: float = Field(
        default=1.0, ge=0, le=10, description="divides the logits; 0 = always the likeliest token"
    )
    top_k: int = Field(default=0, ge=0, le=131_072, description="draw from the k likeliest tokens alone; 0 = from all")
    top_p: float = Field(
        default=1.0, gt=0, le=1,
        description="draw from the fewest tokens that have this probability together (Holtzman et al. 2019, nucleus)",
    )  # fmt: skip
