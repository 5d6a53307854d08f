"""An export: a model in a public format, as one zip, tried against ours before anyone downloads it.

`hf` is a folder for transformers' Auto classes without code of ours; what no public class computes is refused in words.
`onnx` holds for every model. Made by a job, not when a run ends: most models are never exported, and the check needs
libraries that no training run imports.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ssl_core import inference
from ssl_core.context import RunContext
from ssl_core.durable import committed
from ssl_core.errors import EngineError, SpecError
from ssl_core.export import software
from ssl_core.heads import Classifier, classifier_of
from ssl_core.interop import matching, probes
from ssl_core.interop.base import NOT_EXPRESSIBLE, Family, Shape
from ssl_core.interop.hf import BY_MODEL_TYPE, FAMILIES
from ssl_core.spec import ExportSpec, RunOrder

TOLERANCE = 1e-4
"""Greatest difference of an export's outputs from ours that is let through, in float32."""


def run(order: RunOrder, spec: ExportSpec, context: RunContext) -> dict[str, Any]:
    """Write `workdir/artifact/<format>.zip`; returns the verdict.

    Raises:
        SpecError: `export_unsupported`, no public model is this one; `export_unavailable`, a library is missing.
        EngineError: `export_mismatch`, the export computes something else.
    """
    context.emit("stage", stage="exporting")
    model = inference.load(Path(str(order.model)))
    scratch = context.workdir / "export"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        if spec.format == "onnx":
            from ssl_core.interop import onnx

            difference: float | None = onnx.write(model, scratch)
        else:
            difference = write_hf(model, scratch)
        if difference is not None and not difference <= TOLERANCE:
            text = f"outputs differ by {difference:.3g} from this platform's, more than {TOLERANCE}; nothing was kept"
            raise EngineError("export_mismatch", text, "format")
        (scratch / "README.md").write_text(_card(model, spec.format, difference), encoding="utf-8")
        with committed(context.workdir / "artifact") as out:
            _zip(scratch, out / f"{spec.format}.zip")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    metrics = {} if difference is None else {"export/max_abs_difference": difference}
    return {"status": "succeeded", "metrics": metrics, "summary": {"format": spec.format}}


def write_hf(model: inference.LoadedModel, out: Path) -> float | None:
    """A transformers folder; the greatest difference from our outputs, None where transformers is not installed.

    Raises:
        SpecError: `export_unsupported`.
    """
    encoder = model.nets.encoder
    shape = Shape(encoder.spec, model.modality, encoder.facts)
    family, config = _written(shape, str(model.config.get("imported", {}).get("model_type", "")))
    tensors = matching.their_tensors(family, encoder)
    name = family.model_class
    if model.task is not None:
        name, tensors, more = _with_head(family, shape, model, tensors)
        config |= more
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config |= {"architectures": [name], "dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=1))
    _beside(model, out)
    return _difference(out, name, model)


def _written(shape: Shape, imported: str) -> tuple[Family, dict[str, Any]]:
    """The family that this shape is of, the one it was imported from first."""
    first = BY_MODEL_TYPE.get(imported)
    reasons = []
    words = shape.backbone.family == "transformer"
    for family in [*([first] if first else []), *FAMILIES.values()]:
        if (family.inputs == "text") != words:
            continue
        try:
            config = family.write(shape)
        except SpecError as error:
            reasons.append(error.message)
            continue
        if config is not None:
            return family, config
    why = "; ".join(dict.fromkeys(reasons)) or f"none has a {shape.backbone.family} of this shape"
    text = f"no public transformers class computes this model ({why}); download it as native or onnx"
    raise SpecError(NOT_EXPRESSIBLE, text, "format")


def _with_head(
    family: Family, shape: Shape, model: inference.LoadedModel, tensors: dict[str, Tensor]
) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Class, tensors and config with the classifier, its standardisation folded into the linear layer."""
    if family.classifier is None or model.config["task"]["name"] != "classification":
        text = f"transformers' classifiers on {family.model_class} pool or project otherwise than this model's head"
        raise SpecError(NOT_EXPRESSIBLE, f"{text}; download it as native or onnx", "format")
    weight, bias = folded(classifier_of(model.nets))
    labels = {"id2label": dict(enumerate(model.classes)), "label2id": {c: i for i, c in enumerate(model.classes)}}
    prefix = family.prefixes[0] if family.prefixes else ""
    whole = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    whole |= {name: tensor.contiguous() for name, tensor in family.classifier.rows(shape, weight, bias).items()}
    return family.classifier.model_class, whole, {**labels, **family.classifier.config}


def folded(head: Classifier) -> tuple[Tensor, Tensor]:
    """Weight (classes, D) and bias (classes,) of one linear layer that equals the head: W ((v - mean) / scale) + b."""
    weight = head.linear.weight.detach().double() / head.scale.double()
    bias = head.linear.bias.detach().double() - weight @ head.mean.double()
    return weight.float(), bias.float()


def _beside(model: inference.LoadedModel, out: Path) -> None:
    """Tokenizer or picture settings, as Auto classes look for them."""
    facts, codec = model.nets.encoder.facts, model.folder / "tokenizer.json"
    if codec.exists():
        from ssl_core.data import tokenizer

        shutil.copyfile(codec, out / codec.name)
        known = tokenizer.load(codec)
        names = {role: known.id_to_token(index) for role, index in tokenizer.specials(known).items()}
        told = {f"{role.removesuffix('_id')}_token": name for role, name in names.items()}
        told |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": facts.get("max_length", 512)}
        (out / "tokenizer_config.json").write_text(json.dumps(told, indent=1))
    if "mean" in facts and "size" in facts:
        sides = {"height": facts.get("height", facts["size"]), "width": facts.get("width", facts["size"])}
        pictures = {
            "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": sides, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": facts["mean"], "image_std": facts.get("std"),
        }  # fmt: skip
        (out / "preprocessor_config.json").write_text(json.dumps(pictures, indent=1))


@torch.no_grad()
def _difference(folder: Path, name: str, model: inference.LoadedModel) -> float | None:
    """What transformers makes of the folder against ours, on the same random inputs."""
    try:
        import transformers
    except ImportError:
        return None
    head = classifier_of(model.nets) if model.task is not None else None
    graph = probes.graph_of(model.nets.encoder, head)
    inputs = probes.example(graph)
    theirs = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    answer = theirs(**dict(zip(graph.inputs, inputs, strict=True)))
    hidden, logits = graph(*inputs)
    if head is not None:
        return float((answer.logits - logits).abs().max())
    found = answer.last_hidden_state
    found = found.flatten(2).transpose(1, 2) if found.ndim == 4 else found
    # Public pictures may have class tokens in front that ours keep apart.
    apart = (found[:, found.shape[1] - hidden.shape[1] :] - hidden).abs()
    if "attention_mask" in graph.inputs:
        apart = apart[inputs[1] > 0]  # what stands at padding means nothing
    return float(apart.max())


def _card(model: inference.LoadedModel, format: str, difference: float | None) -> str:
    config = model.config
    measured = "not measured: transformers is not installed where it was exported"
    if difference is not None:
        measured = f"{difference:.3g} (greatest absolute difference from the platform's own outputs, float32)"
    versions = ", ".join(f"{name} {version}" for name, version in software().items())
    return "\n".join(
        [
            f"# {config['backbone']['name']} ({config['kind']}, {config['modality']['name']})",
            "",
            f"- format: {format}",
            f"- check: {measured}",
            f"- parameters: {config['parameters']:,}; vector of {config['embed_dim']}",
            f"- classes: {', '.join(config['classes']) or 'none'}",
            "- a pooler that transformers adds is not of this model, and has random weights",
            f"- made with {versions}",
            "",
        ]
    )


def _zip(folder: Path, path: Path) -> None:
    """Stored, not deflated (weights do not shrink), with fixed dates."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.file_size = 0o644 << 16, file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
