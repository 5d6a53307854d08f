"""The layers of a Transformer trunk as an ONNX graph over packed documents, in float32 or with 8-bit weights.

Written node by node: torch's exporter needs seconds for a model, holds the interpreter all the while, and knows nothing
of the fused operators. Embeddings, positions, masks and the last norm stay with torch. Needs the package onnx.

N tokens, S documents, L slots of the longest, D width, H heads of queries, G of keys, E channels of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_core.encoders.transformer import Transformer
from ssl_core.layers import Attention, FeedForward, Layer, LayerScale

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
_FUSED = "com.microsoft"
_LARGEST = 63
"""Of a weight's 8 bits seven are used: without VNNI the CPU adds pairs of products in 16 bits, which would overflow."""
_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "gelu": ("Gelu", {}), "geglu": ("Gelu", {}), "gelu_tanh": ("FastGelu", {}),
    "quick_gelu": ("QuickGelu", {"alpha": 1.702}), "swiglu": ("QuickGelu", {"alpha": 1.0}), "relu": ("Relu", {}),
}  # fmt: skip


class _Graph:
    """Nodes and constants as they are added; values are names."""

    def __init__(self, trunk: Transformer, int8: bool) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.spec, self.int8 = trunk.spec, int8
        self.shared = trunk.spec.key_value_heads or trunk.spec.heads
        self.channels = trunk.spec.width // trunk.spec.heads
        self._made = 0

    def name(self) -> str:
        self._made += 1
        return f"v{self._made}"

    def constant(self, values: NDArray[Any] | Tensor) -> str:
        from onnx import numpy_helper

        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name := self.name()))
        return name

    def shape(self, *sizes: int) -> str:
        return self.constant(np.array(sizes, dtype=np.int64))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, 1, *inputs, domain=domain, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        from onnx import helper

        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    def linear(self, x: str, layer: nn.Linear) -> str:
        weight = layer.weight.detach().float().cpu().numpy().T
        if self.int8:
            scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / _LARGEST
            values = np.clip(np.rint(weight / scale), -_LARGEST, _LARGEST).astype(np.int8)
            given = [x, self.constant(values), self.constant(scale.astype(np.float32)), ""]
            given += [self.constant(layer.bias)] if layer.bias is not None else []
            return self.op("DynamicQuantizeMatMul", *given, domain=_FUSED)
        product = self.op("MatMul", x, self.constant(weight))
        return product if layer.bias is None else self.op("Add", product, self.constant(layer.bias))

    def norm(self, x: str, norm: nn.Module) -> str:
        if isinstance(norm, nn.LayerNorm):
            given = [x, self.constant(norm.weight)] + ([self.constant(norm.bias)] if norm.bias is not None else [])
            return self.op("LayerNormalization", *given, epsilon=norm.eps, axis=-1)
        if isinstance(norm, nn.RMSNorm):
            mean = self.op("ReduceMean", self.op("Mul", x, x), self.shape(-1), keepdims=1)
            root = self.op("Sqrt", self.op("Add", mean, self.constant(np.array(norm.eps, dtype=np.float32))))
            return self.op("Mul", self.op("Div", x, root), self.constant(norm.weight))
        return x

    def scaled(self, x: str, scale: nn.Module) -> str:
        return self.op("Mul", x, self.constant(scale.factor)) if isinstance(scale, LayerScale) else x

    def rotated(self, x: str, window: int) -> str:
        """(N, H + G, E), turned by the angles that are given for the window."""
        first, second = self.ops("Split", 2, x, axis=-1, num_outputs=2)
        cosine, sine = f"cosine{window}", f"sine{window}"
        left = self.op("Sub", self.op("Mul", first, cosine), self.op("Mul", second, sine))
        right = self.op("Add", self.op("Mul", second, cosine), self.op("Mul", first, sine))
        return self.op("Concat", left, right, axis=-1)

    def attention(self, x: str, layer: Attention, window: int) -> str:
        heads, shared, channels = layer.heads, layer.shared, self.channels
        every = heads + 2 * shared
        qkv = self.linear(x, layer.qkv)
        if self.spec.positions == "rotary":
            parts = self.op("Reshape", qkv, self.shape(0, every, channels))
            turned, values = self.ops("Split", 2, parts, self.shape(heads + shared, shared), axis=1)
            both = self.op("Concat", self.rotated(turned, window), values, axis=1)
            qkv = self.op("Reshape", both, self.shape(0, every * channels))
        rows = self.op("Reshape", self.op("Gather", qkv, "slots"), self.shape(0, 0, every, channels))
        rows = self.op("Transpose", rows, perm=[0, 2, 1, 3])
        q, k, v = self.ops("Split", 3, rows, self.shape(heads, shared, shared), axis=1)
        if heads > shared:
            group = self.constant(np.repeat(np.arange(shared), heads // shared))
            k, v = self.op("Gather", k, group, axis=1), self.op("Gather", v, group, axis=1)
        scores = self.op("FusedMatMul", q, k, domain=_FUSED, transB=1, alpha=channels**-0.5)
        weights = self.op("Softmax", self.op("Add", scores, f"bias{window}"), axis=-1)
        seen = self.op("Transpose", self.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        flat = self.op("Reshape", seen, self.shape(-1, heads * channels))
        return self.linear(self.op("Gather", flat, "places"), layer.out)

    def feed_forward(self, x: str, layer: FeedForward) -> str:
        raised = self.linear(x, layer.up)
        kind, attributes = _ACTIVATIONS[self.spec.mlp]
        domain = "" if kind == "Relu" else _FUSED
        if not layer.gated:
            return self.linear(self.op(kind, raised, domain=domain, **attributes), layer.down)
        gate, value = self.ops("Split", 2, raised, axis=-1, num_outputs=2)
        gated = self.op("Mul", self.op(kind, gate, domain=domain, **attributes), value)
        return self.linear(gated, layer.down)

    def layer(self, x: str, layer: Layer, window: int) -> str:
        """As `Layer.forward` without dropout."""
        if layer.pre:
            seen = self.attention(self.norm(x, layer.attention_norm), layer.attention, window)
            x = self.op("Add", x, self.scaled(seen, layer.attention_scale))
            raised = self.feed_forward(self.norm(x, layer.feed_forward_norm), layer.feed_forward)
            return self.op("Add", x, self.scaled(raised, layer.feed_forward_scale))
        seen = self.scaled(self.attention(x, layer.attention, window), layer.attention_scale)
        x = self.norm(self.op("Add", x, seen), layer.attention_norm)
        raised = self.scaled(self.feed_forward(x, layer.feed_forward), layer.feed_forward_scale)
        return self.norm(self.op("Add", x, raised), layer.feed_forward_norm)


def graph_of(trunk: Transformer, int8: bool) -> ModelProto:
    """The layers: `hidden` (N, D) to `out` (N, D).

    Further inputs: `slots` (S, L) and `places` (N,) as in `Packed`, and for each window that a layer has, 0 being none,
    `bias<window>` (S or 1, 1, L or 1, L) added to scores, and with rotary positions `cosine<window>` and `sine<window>`
    (N, 1, E / 2).

    Raises:
        TypeError: a linear layer is none of torch's own (an adapter that was not merged).
    """
    from onnx import TensorProto, helper

    strange = [m for m in trunk.layers.modules() if isinstance(m, nn.Linear) and type(m) is not nn.Linear]
    if strange:
        raise TypeError(f"a layer of {type(strange[0]).__name__} has no graph")
    graph, hidden = _Graph(trunk, int8), "hidden"
    for layer, window in zip(trunk.layers, trunk.windows, strict=True):
        assert isinstance(layer, Layer)
        hidden = graph.layer(hidden, layer, window)
    graph.nodes.append(helper.make_node("Identity", [hidden], ["out"]))
    width = trunk.spec.width
    real, whole = TensorProto.FLOAT, TensorProto.INT64
    inputs: list[tuple[str, int, list[Any]]] = [("hidden", real, ["N", width])]
    inputs += [("slots", whole, ["S", "L"]), ("places", whole, ["N"])]
    for window in sorted(set(trunk.windows)):
        inputs.append((f"bias{window}", real, [f"rows{window}", 1, f"queries{window}", "L"]))
        if trunk.spec.positions == "rotary":
            inputs += [(f"{part}{window}", real, ["N", 1, graph.channels // 2]) for part in ("cosine", "sine")]
    made = helper.make_graph(
        graph.nodes, "layers", [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info("out", real, ["N", width])], graph.constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_FUSED, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)
