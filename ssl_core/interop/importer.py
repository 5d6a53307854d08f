"""An import: a public folder becomes a model folder of ours (docs/contracts.md §4), or a list of what does not fit.

Nothing of the public folder is run: its config is data, its weights are safetensors, its code files are not read.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.nn import Module

from ssl_core.checkpoint import write_tensors
from ssl_core.context import RunContext
from ssl_core.data import tokenizer
from ssl_core.durable import committed
from ssl_core.encoders import build_encoder
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.decoder import Decoder
from ssl_core.errors import DataError, SpecError
from ssl_core.export import FORMAT, software
from ssl_core.interop import folder as folders
from ssl_core.interop import matching
from ssl_core.interop.base import UNSUPPORTED, Family, Public, Shape
from ssl_core.interop.hf import BY_MODEL_TYPE
from ssl_core.interop.tensors import Theirs, read_json
from ssl_core.pair_losses import Scale
from ssl_core.spec import ImportSpec, RunOrder

_SPARE = 1 << 20
_BEYOND = 4
"""An encoder of more numbers than so many times its file's cannot match; it is not even built."""


def run(order: RunOrder, spec: ImportSpec, context: RunContext) -> dict[str, Any]:
    """Import what the order names into `workdir/artifact`; returns the verdict.

    Raises:
        DataError, SpecError: whatever is wrong with the folder, in words, with the tensors' names.
    """
    context.emit("stage", stage="importing")
    scratch = context.workdir / "import"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        if spec.hub is not None:
            folders.fetch(spec.hub, scratch)
        else:
            folders.unpack(Path(order.datasets[str(spec.upload)]), scratch)
        return _import(scratch, spec, context)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _import(folder: Path, spec: ImportSpec, context: RunContext) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    family = family_of(config.get("model_type"))
    codec = folders.tokenizer_of(folder)
    public = Public(config, _specials(codec), folders.extras(folder))
    theirs = Theirs(folder)
    shape = read_shape(family, public)
    if shape.modality.name in ("text", "image_text"):
        _check_tokenizer(codec, shape)
    depth = _decoder_layers(family, public, theirs)
    encoder, parts = _built(shape, depth, theirs)
    if family.scale:
        parts["scale"] = Scale(1.0, 0.0 if any(row.ours == "bias" for row in family.scale) else None)
    report = matching.load(family, encoder, theirs, parts)
    _tell(report, context)
    report.check(spec.least_share)
    counts = {name: len(value) for name, value in report.summary().items() if isinstance(value, list | dict)}
    facts: dict[str, Any] = {"model_type": config["model_type"], "architectures": config.get("architectures"), **counts}
    summary: dict[str, Any] = {
        "format": FORMAT,
        "kind": "encoder",
        "modality": shape.modality.model_dump(mode="json"),
        "backbone": shape.backbone.model_dump(mode="json"),
        "facts": dict(shape.facts),
        "objective": None,
        "task": None,
        "classes": [],
        "embed_dim": encoder.embed_dim,
        "decoder_depth": depth,
        "parameters": sum(tensor.numel() for part in (encoder, *parts.values()) for tensor in part.parameters()),
        "max_length": int(shape.facts.get("max_length", 0)),
        "imported": facts,
    }
    source = spec.hub.model_dump() if spec.hub is not None else spec.filename
    card = {"imported": {**facts, "tensors": report.summary()}, "software": software(), "source": source}
    tensors = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    for name, part in parts.items():
        tensors |= {f"parts.{name}.{k}": v for k, v in part.state_dict().items()}
    with committed(context.workdir / "artifact") as out:
        write_tensors(out / "model.safetensors", tensors)
        (out / "config.json").write_text(json.dumps(summary, allow_nan=False, indent=1))
        (out / "card.json").write_text(json.dumps(card, allow_nan=False, indent=1))
        if codec is not None:
            shutil.copyfile(codec, out / "tokenizer.json")
    return {"status": "succeeded", "metrics": {f"import/{name}": n for name, n in counts.items()}, "summary": summary}


def family_of(model_type: object) -> Family:
    """Raises DataError `unknown_model_type`, naming those there are."""
    family = BY_MODEL_TYPE.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        known = ", ".join(sorted(BY_MODEL_TYPE))
        text = f"config.json: model_type is {model_type!r:.80}; this platform reads {known}"
        raise DataError("unknown_model_type", text, "config.model_type")
    return family


def read_shape(family: Family, public: Public) -> Shape:
    """Raises SpecError `unsupported_config` for a config outside what the trunk can be."""
    try:
        return family.read(public)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its numbers"
        raise SpecError(UNSUPPORTED, f"config.json: {where}: {first['msg']}", "config") from error
    except ZeroDivisionError as error:
        raise SpecError(UNSUPPORTED, "config.json: a width of 0 makes no model", "config") from error


def _specials(codec: Path | None) -> dict[str, int]:
    return {} if codec is None else tokenizer.specials(tokenizer.load(codec))


def _check_tokenizer(codec: Path | None, shape: Shape) -> None:
    """Raises DataError `tokenizer_missing` or `tokenizer_mismatch`."""
    if codec is None:
        text = "the folder needs tokenizer.json, or vocab.txt, or vocab.json with merges.txt"
        raise DataError("tokenizer_missing", text, "tokenizer.json")
    known = tokenizer.load(codec)
    entries, rows = tokenizer.size(known), int(shape.facts.get("text", shape.facts)["vocab_size"])
    if entries > rows:
        text = f"the tokenizer has {entries:,} entries and the model's table {rows:,} rows"
        raise DataError("tokenizer_mismatch", text, "tokenizer.json")
    filler = shape.modality.model_dump().get("filler")
    if filler and known.token_to_id(filler) is None:
        text = f"the tokenizer has no {filler!r}, which fills texts (pad_token of tokenizer_config.json)"
        raise DataError("tokenizer_mismatch", text, "tokenizer.json")


def _decoder_layers(family: Family, public: Public, theirs: Theirs) -> int:
    """Layers of the decoder to take over; 0 where the folder has none, or one of another shape than the encoder's."""
    if family.decoder is None or not any(".decoder." in f".{name}" for name in theirs.shapes):
        return 0
    return family.decoder.depth(public)


def _built(shape: Shape, depth: int, theirs: Theirs) -> tuple[Encoder, dict[str, Module]]:
    """Encoder and decoder, built once their size is known to be of the order of the file's."""
    facts = dict(shape.facts)
    with torch.device("meta"):
        needed = sum(parameter.numel() for parameter in build_encoder(shape.backbone, facts).parameters())
        # A config of a billion layers is not built to be counted.
        each = sum(parameter.numel() for parameter in Decoder(shape.backbone, 1).parameters()) if depth else 0
        needed += depth * each
    held = sum(torch.Size(size).numel() for size in theirs.shapes.values())
    if needed > _BEYOND * held + _SPARE:
        text = f"config.json describes {needed:,} numbers and the weights hold {held:,} in {len(theirs.shapes)} tensors"
        raise DataError("import_mismatch", text, "config.json")
    torch.manual_seed(0)  # what least_share lets be missing is the same in every import
    encoder = build_encoder(shape.backbone, facts).eval()
    return encoder, {"decoder": Decoder(shape.backbone, depth).eval()} if depth else {}


def _tell(report: matching.Report, context: RunContext) -> None:
    """Every tensor that is not simply taken, as messages, so that a refused import has its list too."""
    for name in report.missing:
        context.emit("message", level="warning", code="tensor_missing", message=f"{name}: not in the folder")
    for name, why in report.wrong.items():
        context.emit("message", level="warning", code="tensor_shape", message=f"{name}: {why}")
    for name in report.unknown:
        context.emit("message", level="warning", code="tensor_unknown", message=f"{name}: not of this family")
    for name in report.not_finite:
        context.emit("message", level="warning", code="tensor_not_finite", message=f"{name}: NaN or infinity")
    for name, reason in report.ignored.items():
        context.emit("message", level="info", code="tensor_ignored", message=f"{name}: {reason}")
