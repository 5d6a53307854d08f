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
from torch.nn import Module

from ssl_core import distributed
from ssl_core.backbones import EncoderSpec
from ssl_core.checkpoint import write_tensors
from ssl_core.context import RunContext
from ssl_core.durable import committed, fault_of, read_manifest
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.decoder import Decoder
from ssl_core.encoders.vit import ViT
from ssl_core.errors import CheckpointError, SpecError
from ssl_core.learner import Outcome
from ssl_core.modalities import AnyModality
from ssl_core.modalities.base import Modality
from ssl_core.nets import Nets
from ssl_core.pair_losses import Scale
from ssl_core.run_context import plain
from ssl_core.spec import FinetuneSpec, PretrainSpec, RunOrder

FORMAT = "groundwork-1"
_DECODER, _SCALE = "parts.decoder.", "parts.scale."
_SOFTWARE = ("groundwork", "torch", "numpy", "tokenizers", "safetensors", "pydantic")


@dataclass(frozen=True)
class BaseModel:
    """A model folder, opened as a starting point.

    Attributes:
        folder: where it lies.
        modality, backbone, facts: what its encoder was built from.
        tokenizer: its `tokenizer.json`; None where it has none.
        decoder_depth: layers of the decoder that it keeps beside its encoder; 0 = it has none.
    """

    folder: Path
    modality: Modality
    backbone: EncoderSpec
    facts: dict[str, Any]
    tokenizer: Path | None
    decoder_depth: int = 0

    def load_encoder(self, encoder: Encoder) -> None:
        """Copy its encoder weights; a ViT's positions are stretched to pictures of the size that `encoder` reads.

        Raises CheckpointError `invalid_model` where names or shapes differ.
        """
        tensors = self._tensors("encoder.")
        if isinstance(encoder, ViT) and "position" in tensors:
            tensors["position"] = encoder.positions_from(tensors["position"], self.facts)
        self._fill(encoder, tensors)

    def load_all(self, nets: Nets) -> None:
        """Copy every weight, of its objective's parts too. Raises CheckpointError `invalid_model`."""
        self._load(nets, "")

    def load_decoder(self, decoder: Decoder, param: str = "objective.decoder_depth") -> None:
        """Copy its decoder's weights, into one of `decoder_depth` layers on its `backbone`.

        Raises:
            SpecError: `no_decoder`, it has none; `decoder_mismatch`, it has another number of layers.
            CheckpointError: `invalid_model` where names or shapes differ.
        """
        if not self.decoder_depth:
            text = "the base model has no decoder; start from one pretrained with the objective denoising"
            raise SpecError("no_decoder", text, "model")
        if len(decoder.layers) != self.decoder_depth:
            text = f"the base model's decoder has {self.decoder_depth} layers, and {len(decoder.layers)} are asked for"
            raise SpecError("decoder_mismatch", text, param)
        self._load(decoder, _DECODER)

    def load_parts(self, nets: Nets) -> None:
        """Copy its decoder and its sentinels, or the scale and the bias of its loss of pairs, into nets that go on with
        them; what it has none of stays as it is.

        Sentinels count from 0, so a longer table begins with a shorter one's.

        Raises:
            SpecError, CheckpointError: as `load_decoder`.
        """
        parts = dict(nets.parts.items())
        decoder, scale = parts.get("decoder"), parts.get("scale")
        if isinstance(scale, Scale):
            self._load_scale(scale)
        if not isinstance(decoder, Decoder) or not self.decoder_depth:
            return
        self.load_decoder(decoder)
        table = dict(nets.parts.named_parameters()).get("sentinels.weight")
        known = load_file(self.folder / "model.safetensors").get("parts.sentinels.weight")
        if table is not None and known is not None:
            rows = min(len(table), len(known))
            table.data[:rows] = known[:rows]

    def _load_scale(self, scale: Scale) -> None:
        """Where both losses are of one kind: a scale alone means another thing than one with a bias."""
        tensors = load_file(self.folder / "model.safetensors")
        known = {name.removeprefix(_SCALE): value for name, value in tensors.items() if name.startswith(_SCALE)}
        if known.keys() == scale.state_dict().keys():
            scale.load_state_dict(known)

    def _load(self, module: Module, prefix: str) -> None:
        self._fill(module, self._tensors(prefix))

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = load_file(self.folder / "model.safetensors")
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    def _fill(self, module: Module, tensors: dict[str, Tensor]) -> None:
        try:
            module.load_state_dict(tensors)
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
        depth = int(config.get("decoder_depth", 0))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CheckpointError("invalid_model", "the base model's config.json cannot be read", "model") from error
    tokenizer = folder / "tokenizer.json"
    return BaseModel(folder, modality, backbone, facts, tokenizer if tokenizer.exists() else None, depth)


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
    int8: dict[str, Any] | None = None
    """How near 8-bit weights stay (`ssl_core.evaluation.precision`); None where they are not offered."""


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
    spec, decoder = card.spec, dict(nets.parts.items()).get("decoder")
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
        "decoder_depth": len(decoder.layers) if isinstance(decoder, Decoder) else 0,
        "parameters": sum(parameter.numel() for parameter in nets.parameters()),
        "max_length": int(card.modality.model_dump().get("max_length", 0)),
    }


def _card(card: Card) -> dict[str, Any]:
    digests = {name: read_manifest(Path(path)).get("digest") for name, path in card.order.datasets.items()}
    told = {} if card.int8 is None else {"int8": card.int8}
    return told | {
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
