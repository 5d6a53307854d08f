"""An export: a model in a public format, as one zip, tried against ours before anyone downloads it.

`hf` is a folder for transformers' Auto classes without code of ours; what no public class computes is refused in words.
`onnx` holds for every model. Made by a job, not when a run ends: most models are never exported, and the check needs
libraries that no training run imports.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ssl_core import inference
from ssl_core.context import RunContext
from ssl_core.durable import committed
from ssl_core.errors import EngineError, SpecError
from ssl_core.export import software
from ssl_core.interop import matching, probes, writers
from ssl_core.interop.base import NOT_EXPRESSIBLE, Family, Headed, Shape, inexpressible
from ssl_core.interop.hf import BY_MODEL_TYPE, FAMILIES
from ssl_core.spec import ExportSpec, RunOrder
from ssl_core.tasks import Task
from ssl_core.tasks.translation import Translation


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
        found, note = _make(model, spec.format, scratch)
        if found is not None and not found.same:
            text = f"outputs differ by {found.difference:.3g} from this platform's, of up to {found.greatest:.3g}"
            raise EngineError("export_mismatch", f"{text}; nothing was kept", "format")
        (scratch / "README.md").write_text(_card(model, spec.format, found, note), encoding="utf-8")
        with committed(context.workdir / "artifact") as out:
            _zip(scratch, out / f"{spec.format}.zip")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    metrics = {} if found is None else {"export/max_abs_difference": found.difference}
    return {"status": "succeeded", "metrics": metrics, "summary": {"format": spec.format}}


def _make(model: inference.LoadedModel, format: str, out: Path) -> tuple[probes.Measured | None, str]:
    if format == "hf":
        return write_hf(model, out)
    from ssl_core.interop import onnx

    return onnx.write(model, out), ""


def write_hf(model: inference.LoadedModel, out: Path) -> tuple[probes.Measured | None, str]:
    """A transformers folder; how far it is from our outputs, None where transformers is not installed, and what
    whoever downloads it should know.

    Raises:
        SpecError: `export_unsupported`.
    """
    encoder = model.nets.encoder
    shape = Shape(encoder.spec, model.modality, encoder.facts)
    nets = writers.whole(model)
    name = None if nets is None else writers.write(nets, shape, out)
    if nets is not None and name is not None:
        _beside(model, out)
        if isinstance(model.task, Translation):
            writers.write_search(model.task, shape, out)
        return writers.measured(out, name, nets), ""
    family, config, made = _written(shape, model)
    save_file(dict(made.tensors), out / "model.safetensors", metadata={"format": "pt"})
    config |= {**made.config, "architectures": [made.model_class], "dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=1))
    _beside(model, out)
    return _measured(out, family, made.model_class, model), made.note


_READS = {
    "transformer": "text", "wave": "wave", "dual": "pair", **dict.fromkeys(("vit", "convnet", "resnet"), "pixels"),
}  # fmt: skip


def _written(shape: Shape, model: inference.LoadedModel) -> tuple[Family, dict[str, Any], Headed]:
    """Family, config and tensors of the first one that this model is of; the one it was imported from goes first."""
    first = BY_MODEL_TYPE.get(str(model.config.get("imported", {}).get("model_type", "")))
    reasons = []
    for family in [*([first] if first else []), *FAMILIES.values()]:
        if family.inputs != _READS[shape.backbone.family] or not family.exported:
            continue
        try:
            config = family.write(shape)
            if config is not None:
                return family, config, _whole(family, shape, model)
        except SpecError as error:
            reasons.append(error.message)
    why = "; ".join(dict.fromkeys(reasons)) or f"none has a {shape.backbone.family} of this shape"
    text = f"no public transformers class computes this model ({why}); download it as native or onnx"
    if model.task is not None:
        text += ", or export the encoder that it was trained from"
    raise SpecError(NOT_EXPRESSIBLE, text, "format")


def _whole(family: Family, shape: Shape, model: inference.LoadedModel) -> Headed:
    """The trunk, or the classifier on it, its standardisation folded into the linear layer."""
    trunk = matching.their_tensors(family, model.nets.encoder) | _scale(family, model)
    if model.task is None:
        return Headed(family.model_class, trunk)
    head = probes.head_of(model)
    if head is None or head.linear is None or not head.problem:
        raise inexpressible(family.model_class, f"it has no head for {described(model.task)}")
    write = family.tag if head.each_token else family.classify
    if write is None:
        raise inexpressible(family.model_class, "its classifiers pool or project otherwise than this model's head")
    made = write(shape, trunk, *head.linear)
    names = model.classes or [model.task.target]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    told = {} if head.each_token else {"problem_type": head.problem}
    return replace(made, config={**labels, **told, **made.config})


def described(task: Task) -> str:
    """The task, and its mode where it has modes."""
    mode = getattr(task, "mode", "")
    return f"the task {task.name}" + (f" in the mode {mode}" if mode else "")


_SCALES = {"logarithm": 2.6592, "bias": -10.0}
"""With what the papers' runs begin, for a model that no such loss has trained."""


def _scale(family: Family, model: inference.LoadedModel) -> dict[str, Tensor]:
    """Of pairs, what their loss multiplies cosines with."""
    if not family.scale:
        return {}
    kept = "parts.scale."
    with safe_open(model.folder / "model.safetensors", framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith(kept)]  # noqa: SIM118
        known = {name.removeprefix(kept): opened.get_tensor(name) for name in names}
    usual = {name: torch.tensor(value) for name, value in _SCALES.items()}
    return matching.made_of(list(family.scale), usual | known)


def _beside(model: inference.LoadedModel, out: Path) -> None:
    """Tokenizer or picture settings, as Auto classes look for them."""
    facts, codec = model.nets.encoder.facts, model.folder / "tokenizer.json"
    if codec.exists():
        from ssl_core.data import tokenizer

        shutil.copyfile(codec, out / codec.name)
        known = tokenizer.load(codec)
        names = {role: known.id_to_token(index) for role, index in tokenizer.specials(known).items()}
        told: dict[str, Any] = {f"{role.removesuffix('_id')}_token": name for role, name in names.items()}
        words = facts.get("text", facts)
        told |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": words.get("max_length", 512)}
        filler = model.modality.model_dump().get("filler")
        if filler:  # which is read as any other entry, so that nobody may mask it
            told |= {"pad_token": filler, "model_input_names": ["input_ids"]}
        (out / "tokenizer_config.json").write_text(json.dumps(told, indent=1))
    shown = facts.get("image", facts)
    if "mean" in shown and "size" in shown:
        sides = {"height": shown.get("height", shown["size"]), "width": shown.get("width", shown["size"])}
        pictures = {
            "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": sides, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": shown["mean"], "image_std": shown.get("std"),
        }  # fmt: skip
        (out / "preprocessor_config.json").write_text(json.dumps(pictures, indent=1))


@torch.no_grad()
def _measured(folder: Path, family: Family, name: str, model: inference.LoadedModel) -> probes.Measured | None:
    """What transformers makes of the folder against ours, on the same random inputs."""
    try:
        import transformers
    except ImportError:
        return None
    head = probes.head_of(model)
    graph = probes.graph_of(model.nets.encoder, head)
    inputs = probes.example(graph)
    theirs = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    fed = family.feed(dict(zip(graph.inputs, inputs, strict=True)))
    hidden, vector = graph(*inputs)
    if family.inputs == "pair":
        images = theirs.get_image_features(pixel_values=fed.pop("pixel_values"))
        return probes.measured([(hidden, _vectors(theirs.get_text_features(**fed))), (vector, _vectors(images))])
    answer = theirs(**fed)
    if head is not None:
        real = inputs[1] > 0 if head.each_token else slice(None)  # what stands at padding means nothing
        return probes.measured([(vector[real], answer.logits[real])])
    if family.output == "pooler_output":
        return probes.measured([(vector, answer.pooler_output)])
    found = answer.last_hidden_state
    found = found.flatten(2).transpose(1, 2) if found.ndim == 4 else found
    # Public pictures may have class tokens in front that ours keep apart.
    found = found[:, found.shape[1] - hidden.shape[1] :]
    if "attention_mask" in graph.inputs:
        hidden, found = hidden[inputs[1] > 0], found[inputs[1] > 0]
    return probes.measured([(hidden, found)])


def _vectors(answer: Any) -> Tensor:
    """What transformers calls features: a tensor, since its fifth version within an object."""
    found: Tensor = getattr(answer, "pooler_output", answer)
    return found


def _card(model: inference.LoadedModel, format: str, found: probes.Measured | None, note: str) -> str:
    config = model.config
    measured = "not measured: transformers is not installed where it was exported"
    if found is not None:
        measured = f"{found.difference:.3g} (greatest absolute difference from the platform's own outputs, float32)"
        measured += f"; these reach {found.greatest:.3g}"
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
            *([f"- {note}"] if note else []),
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
