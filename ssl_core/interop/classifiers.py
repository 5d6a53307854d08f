"""A linear layer on our pooled vector, said by the classifiers of transformers. Imports without torch.

Some of their heads are more than a linear layer: a layer with a tanh, a GELU or a norm behind it comes first. Each of
them can be given weights with which it is the identity, or a linear layer, in every digit of float32:

- tanh(x) is x where x is small, so the first layer scales by 2^-20 and the last one back;
- GELU(x) - GELU(-x) is x, so the first layer computes every answer and its negative, and the last one subtracts;
- a layer norm divides by the root of variance + epsilon, which is the root of epsilon where x is tiny and has no mean.

D channels, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ssl_core.interop.base import Classify, Headed, Shape, inexpressible

if TYPE_CHECKING:
    from torch import Tensor

_TANH, _NORM = 2.0**-20, 2.0**-32
"""Powers of two, so that scaling there and back changes no digit; small enough for vectors of thousands."""
SCALED = "its head computes with very small numbers in between: float32 and bfloat16 hold them, float16 does not"


def linear(model_class: str, prefix: str, place: str, pooling: str) -> Classify:
    """Of a head that is one linear layer with a bias.

    Args:
        model_class: of transformers.
        prefix: of the trunk in it.
        place: of the layer.
        pooling: which vector it reads.
    """

    def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
        needs(shape, pooling, model_class)
        return Headed(model_class, under(prefix, trunk) | layer(place, weight, bias))

    return classify


def each_token(model_class: str, prefix: str, place: str) -> Classify:
    """Of a head that is one linear layer with a bias on every token's output. Arguments as for `linear`."""

    def tag(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
        return Headed(model_class, under(prefix, trunk) | layer(place, weight, bias))

    return tag


def after_tanh(model_class: str, prefix: str, first: str, last: str) -> Classify:
    """Of a head that reads the first token through a layer and a tanh.

    Args:
        model_class, prefix: as for `linear`.
        first, last: places of its two layers.
    """

    def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
        import torch

        needs(shape, "cls", model_class)
        scaled = _TANH * torch.eye(weight.shape[1])
        head = layer(first, scaled, torch.zeros(weight.shape[1])) | layer(last, weight / _TANH, bias)
        return Headed(model_class, under(prefix, trunk) | head, note=SCALED)

    return classify


def after_gelu(model_class: str, prefix: str, first: str, last: str) -> Classify:
    """The same with a GELU. Arguments as for `after_tanh`."""

    def classify(shape: Shape, trunk: Mapping[str, Any], weight: Any, bias: Any) -> Headed:
        import torch

        needs(shape, "cls", model_class)
        classes, width = weight.shape
        room(2 * classes, width, model_class)
        both = filled(torch.cat([weight, -weight]), width)
        apart = torch.cat([torch.eye(classes), -torch.eye(classes)], 1)
        back = torch.cat([apart, torch.zeros(classes, width - 2 * classes)], 1)
        head = layer(first, both, torch.zeros(width)) | layer(last, back, bias)
        return Headed(model_class, under(prefix, trunk) | head)

    return classify


def before_norm(weight: Any, epsilon: float, model_class: str) -> tuple[Tensor, Tensor]:
    """(D, D) and (C, D) of the layers before and behind a layer norm of weight 1 and bias 0, for (C, D) `weight`.

    What goes into the norm is every answer, scaled down, and less their sum once, so that the mean is 0.
    """
    import torch

    classes, width = weight.shape
    room(classes + 1, width, model_class)
    exact = weight.double()
    first = filled(_NORM * torch.cat([exact, -exact.sum(0, keepdim=True)]), width)
    last = torch.cat([torch.eye(classes), torch.zeros(classes, width - classes)], 1).double()
    return first.float(), (last * epsilon**0.5 / _NORM).float()


def needs(shape: Shape, pooling: str, model_class: str) -> None:
    """Raises SpecError `export_unsupported` where the vector of a sample is made otherwise."""
    found = shape.backbone.pooling
    if found != pooling:
        raise inexpressible(model_class, f"it classifies by pooling {pooling}, and this encoder pools by {found}")


def room(rows: int, width: int, model_class: str) -> None:
    """Raises SpecError `export_unsupported` where a head is too narrow for so many classes."""
    if rows > width:
        raise inexpressible(model_class, f"for that many classes its head would need {rows} channels, not {width}")


def filled(rows: Tensor, count: int) -> Tensor:
    """(count, D): the rows, and zeros below them."""
    return rows.new_zeros(count, rows.shape[1]).index_copy(0, rows.new_tensor(range(len(rows))).long(), rows)


def under(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The trunk's tensors under the name that it has in a model with a head."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def layer(place: str, weight: Any, bias: Any) -> dict[str, Any]:
    """A linear layer's two tensors."""
    return {f"{place}.weight": weight.contiguous(), f"{place}.bias": bias.contiguous()}
