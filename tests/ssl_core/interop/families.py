"""A small public model of each interchange family, by its file's name; every test of interchange runs over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

TEXT = {"vocab_size": 120, "pad_token_id": 0}
TRUNK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@dataclass(frozen=True)
class Toy:
    """A public model with a head, so that prefixes and what is left out are tested too.

    Attributes:
        make: the model, freshly initialised; `randomised` moves its weights.
        kind: what it reads, `text`, `image` or `wave`; random inputs are made of it.
        atol: greatest difference of the trunk's output to ours in float32.
        folder: further JSON files of its folder, e.g. `preprocessor_config.json`.
    """

    make: Callable[[], nn.Module]
    kind: str = "text"
    atol: float = 1e-5
    folder: dict[str, dict[str, Any]] | None = None


TOYS: dict[str, Toy] = {
    "bert": Toy(
        lambda: transformers.BertForMaskedLM(transformers.BertConfig(**TEXT, **TRUNK, max_position_embeddings=64))
    ),
}


def randomised(module: nn.Module) -> nn.Module:
    """Norms and biases away from 1 and 0, or a swap of two of them would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.2 if parameter.ndim == 1 else 0.1
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()
