"""A model as ONNX, by torch's own exporter, run in onnxruntime before it is kept. Needs the extra `interop`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ssl_core.errors import SpecError
from ssl_core.inference import LoadedModel
from ssl_core.interop import probes

OPSET = 18
_LARGE = 1_500_000_000
"""Bytes of weights from which they stand beside the graph: one protocol buffer holds 2 GB."""


def write(model: LoadedModel, out: Path) -> probes.Measured:
    """`model.onnx` with batch and length free; how far it is from our outputs, on two shapes of input.

    Raises:
        SpecError: `export_unavailable`, the libraries are not installed.
    """
    try:
        import onnx as _  # noqa: F401
        import onnxruntime
        import onnxscript as _scripts  # noqa: F401
    except ImportError as error:
        text = "this worker is installed without the extra `interop` (onnx, onnxscript, onnxruntime)"
        raise SpecError("export_unavailable", text, "format") from error
    head = probes.head_of(model)
    whole = model.task.whole(model.nets) if model.task is not None and head is None else None
    if model.task is not None and head is None and whole is None:
        text = f"the answers of the task {model.task.name} are no function of tensors; download the model as native"
        raise SpecError("export_unsupported", text, "format")
    graph = probes.graph_of(model.nets.encoder, head) if whole is None else probes.WholeGraph(model, whole).eval()
    path = out / "model.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph, probes.example(graph), path, dynamo=True, opset_version=OPSET, input_names=list(graph.inputs),
            output_names=list(graph.outputs), dynamic_shapes=_free(graph), verbose=False,
            external_data=model.size_bytes > _LARGE,
        )  # fmt: skip
    if model.classes:
        (out / "classes.txt").write_text("\n".join(model.classes) + "\n", encoding="utf-8")
    codec = model.folder / "tokenizer.json"
    if codec.exists():
        (out / codec.name).write_bytes(codec.read_bytes())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tries = [probes.example(graph, longer) for longer in (0, 2)]
    return probes.measured([pair for inputs in tries for pair in _answers(session, graph, inputs)])


def _free(graph: probes.Graph) -> tuple[dict[int, object], ...]:
    """Which sizes may differ from the example's: samples, and tokens of a text."""
    batch, length = torch.export.Dim("batch", min=1, max=1 << 16), torch.export.Dim("length", min=2, max=1 << 15)
    facts = graph.encoder.facts
    if "input_ids" in graph.inputs:
        words = facts.get("text", facts)
        length = torch.export.Dim("length", min=2, max=int(words["max_length"]))
    words = ("input_ids", "attention_mask")
    return tuple({0: batch, 1: length} if name in words else {0: batch} for name in graph.inputs)


@torch.no_grad()
def _answers(session: object, graph: probes.Graph, inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """Ours and the session's to `inputs`, padding aside."""
    fed = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
    found = [torch.from_numpy(value) for value in session.run(None, fed)]  # type: ignore[attr-defined]
    pairs = []
    for name, mine, other in zip(graph.outputs, graph(*inputs), found, strict=True):
        of_tokens = graph.each_token or name == "last_hidden_state"
        padded = of_tokens and "attention_mask" in graph.inputs
        pairs.append((mine[inputs[1] > 0], other[inputs[1] > 0]) if padded else (mine, other))
    return pairs
