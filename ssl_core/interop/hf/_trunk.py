"""What families of the Transformer trunk share. Imports without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_core.errors import SpecError
from ssl_core.interop.base import Public, Shape, unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_core.backbones import EncoderSpec

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
    "quick_gelu": "quick_gelu",
}  # fmt: skip
"""Theirs -> ours."""
THEIR_ACTIVATION = {
    "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "quick_gelu": "quick_gelu", "geglu": "gelu",
    "swiglu": "silu",
}  # fmt: skip
LONGEST = 32_768
"""Positions that `EncoderSpec` holds; rotary positions have no table, so that more of them are no loss."""


def same_again(read: Callable[[Public], Shape], config: dict[str, Any], shape: Shape) -> dict[str, Any] | None:
    """The config, if reading it gives the shape that it was written from; so a family writes what it can say, no more.

    What no public config says is left aside: the name, and how tokens become one vector.
    """
    specials = {name: value for name, value in shape.facts.items() if name.endswith("_id")}
    try:
        again = read(Public(config, specials)).backbone
    except (SpecError, ValueError):
        return None
    return config if _plain(again) == _plain(shape.backbone) else None


def _plain(spec: EncoderSpec) -> EncoderSpec:
    """The spec with every 0 or `same` said out, and without what its computation does not read."""
    bias = spec.bias if spec.qkv_bias == "same" else spec.qkv_bias == "yes"
    rotary = spec.positions == "rotary"
    return spec.model_copy(
        update={
            "name": "custom",
            "pooling": "mean",
            "mlp_ratio": round(spec.mlp_ratio * spec.width) / spec.width,
            "key_value_heads": spec.key_value_heads or spec.heads,
            "qkv_bias": "yes" if bias else "no",
            "embedding_width": spec.embedding_width or spec.width,
            "rotary_base": spec.rotary_base if rotary else 0.0,
            "local_rotary_base": (spec.local_rotary_base or spec.rotary_base) if rotary and spec.window else 0.0,
        }
    )


def dropout(public: Public, name: str) -> float:
    """A dropout of theirs, as far as ours goes."""
    return min(0.5, public.number(name, 0.0))


def rotary_base(parameters: object, name: str) -> float:
    """The base of a rotary setting of transformers 5. Raises SpecError where positions are stretched."""
    if not isinstance(parameters, Mapping) or parameters.get("rope_type", "default") != "default":
        raise unsupported(name, parameters, "rope_type default")
    return Public(parameters).number("rope_theta", 10_000.0)


@dataclass(frozen=True)
class OpenGate:
    """A feed-forward without a gate, said by a family that has one: the gate is 1 whatever comes in.

    Attributes:
        rows: hidden channels.
        value: of the gate's rows: 0 in the matrix, 1 in the bias.
    """

    rows: int
    value: float

    def ours(self, theirs: list[Tensor]) -> Tensor:
        """See `ssl_core.interop.transforms.Transform`. Raises RuntimeError where the gate is not open."""
        if len(theirs[0]) != 2 * self.rows or bool((theirs[0][self.rows :] != self.value).any()):
            raise RuntimeError(f"it is no {self.rows} rows with a gate that is always open")
        return theirs[0][: self.rows].contiguous()

    def theirs(self, ours: Tensor) -> list[Tensor]:
        """See `ssl_core.interop.transforms.Transform`."""
        import torch

        return [torch.cat([ours, torch.full_like(ours, self.value)])]
