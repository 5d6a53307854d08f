"""The model folder of docs/contracts.md §4: written by a finished run, read again as the base of another."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ssl_core import distributed
from ssl_core.backbones import EncoderSpec
from ssl_core.checkpoint import write_tensors
from ssl_core.context import RunContext
from ssl_core.durable import committed, fault_of, read_manifest
from ssl_core.encoders.base import Encoder
from ssl_core.errors import CheckpointError
from ssl_core.learner import Outcome
from ssl_core.modalities import AnyModality
from ssl_core.modalities.base import Modality
from ssl_core.nets import Nets
from ssl_core.run_context import plain
from ssl_core.spec import FinetuneSpec, PretrainSpec, RunOrder

FORMAT = "groundwork-1"
_SOFTWARE = ("groundwork", "torch", "numpy", "tokenizers", "safetensors", "pydantic")


@dataclass(frozen=True)
class BaseModel:
    """A model folder, opened as a starting point.

    Attributes:
        folder: where it lies.
        modality, backbone, facts: what its encoder was built from.
        tokenizer: its `tokenizer.json`; None where it has none.
    """

    folder: Path
    modality: Modality
    backbone: EncoderSpec
    facts: dict[str, Any]
    tokenizer: Path | None

    def load_encoder(self, encoder: Encoder) -> None:
        """Copy its encoder weights. Raises CheckpointError `invalid_model` where names or shapes differ."""
        prefix = "encoder."
        tensors: dict[str, Tensor] = load_file(self.folder / "model.safetensors")
        mine = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        try:
            encoder.load_state_dict(mine)
        except RuntimeError as error:
            text = f"the base model's weights do not fit its own config: {str(error).splitlines()[0]}"
            raise CheckpointError("invalid_model", text, "model") from error


def open_base(folder: Path) -> BaseModel:
    """Verify and open a model folder.

    Raises:
        CheckpointError: `invalid_model`: a file is missing or changed, or its config cannot be read.
    """
    fault = fault_of(folder)
    if fault is not None:
        raise CheckpointError("invalid_model", f"the base model is damaged: {fault}", "model")
    try:
        config = json.loads((folder / "config.json").read_text())
        modality = TypeAdapter(AnyModality).validate_json(json.dumps(config["modality"]))
        backbone = EncoderSpec.model_validate_json(json.dumps(config["backbone"]))
        facts = dict(config["facts"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CheckpointError("invalid_model", "the base model's config.json cannot be read", "model") from error
    tokenizer = folder / "tokenizer.json"
    return BaseModel(folder, modality, backbone, facts, tokenizer if tokenizer.exists() else None)


@dataclass(frozen=True)
class Card:
    """What a run leaves behind beside the weights."""

    order: RunOrder
    spec: PretrainSpec | FinetuneSpec
    modality: Modality
    facts: dict[str, Any]
    classes: list[str]
    metrics: dict[str, float]
    best_step: int
    steps: int
    seconds: float


def export(workdir: Path, nets: Nets, card: Card, tokenizer: Path | None) -> dict[str, Any]:
    """Commit `workdir/artifact` and return its `config.json`."""
    config = _config(nets, card)
    with committed(workdir / "artifact") as folder:
        write_tensors(
            folder / "model.safetensors",
            {name: value.float() if value.is_floating_point() else value for name, value in nets.state_dict().items()},
        )
        (folder / "config.json").write_text(json.dumps(config, allow_nan=False, indent=1))
        (folder / "card.json").write_text(json.dumps(plain(_card(card)), allow_nan=False, indent=1))
        if tokenizer is not None:
            shutil.copyfile(tokenizer, folder / "tokenizer.json")
    return config


def _config(nets: Nets, card: Card) -> dict[str, Any]:
    spec = card.spec
    return {
        "format": FORMAT,
        "kind": "encoder" if isinstance(spec, PretrainSpec) else "task",
        "modality": card.modality.model_dump(mode="json"),
        "backbone": nets.encoder.spec.model_dump(mode="json"),
        "facts": card.facts,
        "objective": spec.objective.model_dump(mode="json") if isinstance(spec, PretrainSpec) else None,
        "task": spec.task.model_dump(mode="json") if isinstance(spec, FinetuneSpec) else None,
        "classes": card.classes,
        "embed_dim": nets.encoder.embed_dim,
        "parameters": sum(parameter.numel() for parameter in nets.parameters()),
        "max_length": int(card.modality.model_dump().get("max_length", 0)),
    }


def _card(card: Card) -> dict[str, Any]:
    digests = {name: read_manifest(Path(path)).get("digest") for name, path in card.order.datasets.items()}
    return {
        "spec": card.spec.model_dump(mode="json"),
        "seed": card.spec.seed,
        "metrics": card.metrics,
        "best_step": card.best_step,
        "steps": card.steps,
        "minutes": round(card.seconds / 60, 3),
        "dataset_digests": digests,
        "base_model": card.spec.model,
        "software": software(),
    }


def software() -> dict[str, str]:
    """Versions of what made a model."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _SOFTWARE}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Finished:
    """A call of `train` that came back, with all that an export needs."""

    nets: Nets
    outcome: Outcome
    card: Card
    tokenizer: Path | None


def finish(context: RunContext, run: Finished) -> dict[str, Any]:
    """Export a finished run, or say where a stopped one stands."""
    state = run.outcome.state
    if run.outcome.status == "stopped":
        return {"status": "stopped", "reason": run.outcome.reason, "step": state.step}
    context.emit("stage", stage="exporting")
    config = export(context.workdir, run.nets, run.card, run.tokenizer) if distributed.is_main() else {}
    return {"status": "succeeded", "metrics": plain(run.card.metrics), "summary": config}
