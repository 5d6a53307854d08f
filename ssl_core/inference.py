"""An exported model, opened: vectors and answers for texts and pictures. Needs torch.

    model = load(Path("model"))
    model.embed(["some text"])                       # (1, D) float32
    model.predict(["some text"])                     # [{"label": ..., "probabilities": {...}}]

An item is a string or a list of token ids (text), the bytes of a JPEG, PNG or WebP file (image), or, where a modality
has several columns of content, a mapping of them. A text longer
than the model reads (`max_length` tokens) is cut there; `token_counts` says how many tokens were used.
B samples, N tokens or patches, D = `embed_dim`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ssl_core.backbones import FAMILIES, EncoderSpec
from ssl_core.batch import Batch, Inputs, Tokens, targets_of
from ssl_core.completion import Completer
from ssl_core.durable import fault_of, read_manifest
from ssl_core.encoders import build_encoder
from ssl_core.encoders.base import Encoder
from ssl_core.encoders.transformer import Transformer
from ssl_core.errors import CheckpointError, DataError, SpecError
from ssl_core.int8 import TRIED_ROWS, Int8Trunk
from ssl_core.modalities import AnyModality, Modality
from ssl_core.nets import Nets
from ssl_core.objectives import AnyObjective, Objective
from ssl_core.packing import hidden_of, pack, pooled
from ssl_core.samples import Sample, batches_of, sample_of, stacked_rows
from ssl_core.targets.base import TARGET
from ssl_core.tasks import AnyTask, Task

Pooling = Literal["mean", "cls", "max"]
Precision = Literal["fp32", "int8"]
Item = str | list[int] | bytes | Mapping[str, str | bytes]
FORMAT = "groundwork-1"
BATCH_WORK = 2 * 10**10
"""Tokens x parameters of one batch: about a second on two cores, so that nobody waits long for a turn."""


class LoadedModel:
    """A model folder (docs/contracts.md §4) in memory, in evaluation mode. `embed` and `predict` are for one thread
    at a time; `read` may run in any."""

    def __init__(
        self, folder: Path, config: dict[str, Any], nets: Nets, device: torch.device, half: bool = False
    ) -> None:
        self.folder = folder
        self.config = config
        self.nets = nets.eval().requires_grad_(False).to(device)
        self.device, self.half = device, half
        self.int8: Int8Trunk | None = None
        self._quantising = threading.Lock()
        self.modality: Modality = TypeAdapter(AnyModality).validate_json(json.dumps(config["modality"]))
        self.task: Task | None = _task(config)
        self.objective: Objective | None = _objective(config)
        self.completes = self.objective.completes if self.objective is not None and self.task is None else None
        self.completer: Completer | None = None
        if self.completes is not None:
            self.completer = Completer(folder, self.nets, bool(config["modality"].get("special_tokens", False)))
        self.classes: list[str] = config["classes"]
        self.embed_dim: int = nets.encoder.embed_dim
        tensors = [*nets.parameters(), *nets.buffers()]
        self.size_bytes: int = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        parameters = sum(tensor.numel() for tensor in nets.parameters())
        self.batch_tokens: int = max(256, min(32_768, BATCH_WORK // max(1, parameters)))

    def read(self, items: Sequence[Item]) -> list[Sample]:
        """Tokenize or decode.

        Raises:
            DataError: `invalid_input`, `empty_input` or the decoder's code; `param` is `input[<number>]`.
        """
        for number, item in enumerate(items):
            _check_kind(item, number, self.modality)
        try:
            raw = {**self.modality.collate(list(items), self.folder)}
            if self.task is not None:
                known = self.task.served(self.modality, list(items), self.folder)
                raw |= {TARGET + name: torch.from_numpy(values) for name, values in known.items()}
        except DataError as error:
            raise DataError(error.code, error.message, _as_input(error.param)) from error
        lengths = raw.get("lengths")
        return [sample_of(raw, row, None if lengths is None else int(lengths[row])) for row in range(len(items))]

    def token_counts(self, items: Sequence[Item]) -> list[int]:
        """Tokens the model reads of each item, after cutting at its `max_length`; 1 for a picture."""
        return [sample.tokens for sample in self.read(items)]

    def embed(
        self, items: Sequence[Item | Sample], pooling: Pooling = "mean", precision: Precision = "fp32"
    ) -> NDArray[np.float32]:
        """(n, D) float32, as the encoder made them (not normalised).

        Args:
            items: what to embed.
            pooling: `mean` (the encoder's own: over the real tokens or patches), `cls` (the first token; encoders
                with tokens only) or `max`.
            precision: `int8` computes with 8-bit weights; the first rows are computed in both ways and compared.

        Raises:
            DataError: see `read`.
            SpecError: `unsupported_pooling`; what `quantise` raises; `precision_lost`, 8 bits are too coarse for it.
        """
        self.check_pooling(pooling)
        coarse = self.quantise(pooling) if precision == "int8" else None
        samples = self._samples(items)
        vectors = np.empty((len(samples), self.embed_dim), dtype=np.float32)
        for batch in batches_of(samples, self.batch_tokens, isinstance(self.nets.encoder, Transformer)):
            with torch.inference_mode():
                inputs = self._inputs(self._raw([samples[at] for at in batch]))
                vectors[batch] = self._vectors(inputs, pooling, coarse).cpu().numpy()
        return vectors

    def quantise(self, pooling: Pooling = "mean") -> Int8Trunk:
        """Its layers with 8-bit weights, made when first asked for; `size_bytes` counts them from then on.

        Raises:
            SpecError: `precision_unsupported`, `precision_unavailable`; `precision_lost`, in this pooling.
        """
        encoder = self.nets.encoder
        if not isinstance(encoder, Transformer) or self.device.type != "cpu":
            text = "8-bit weights are offered for encoders of texts and other tokens, on a CPU"
            raise SpecError("precision_unsupported", text, "precision")
        with self._quantising:
            if self.int8 is None:
                self.int8 = Int8Trunk(encoder)
                self.size_bytes += self.int8.size_bytes
        self.int8.near(pooling).check()
        return self.int8

    def predict(self, items: Sequence[Item | Sample]) -> list[dict[str, Any]]:
        """The task's answer for each item.

        Raises:
            DataError: see `read`.
            SpecError: `no_task`, this model is an encoder without a head.
        """
        task = self.check_task()
        samples = self._samples(items)
        answers: list[dict[str, Any]] = [{}] * len(samples)
        for batch in batches_of(samples, self.batch_tokens):
            seeds = torch.zeros(len(batch), dtype=torch.int64, device=self.device)
            with torch.inference_mode():
                raw = self._raw([samples[at] for at in batch])
                inputs = self._inputs(raw)
                outputs = task.predict(self.nets, Batch(views=(inputs,), seeds=seeds, targets=targets_of(raw)))
            outputs = task.spelled({name: tensor.cpu() for name, tensor in outputs.items()}, self.folder)
            for row, at in enumerate(batch):
                answers[at] = task.answer(outputs, row, self.classes)
        return answers

    def check_pooling(self, pooling: str) -> None:
        """Raises SpecError `unsupported_pooling`, naming what this encoder offers."""
        has_tokens = FAMILIES[self.nets.encoder.spec.family][1]
        offered = ("mean", "cls", "max") if has_tokens else ("mean", "max")
        if pooling not in offered:
            words = f"this model's encoder offers the poolings {', '.join(offered)}, not {pooling!r}"
            raise SpecError("unsupported_pooling", words, "pooling")

    def check_task(self) -> Task:
        """The model's task. Raises SpecError `no_task`."""
        if self.task is None:
            words = "this model is an encoder without a task; fine-tune it first, or ask for embeddings"
            raise SpecError("no_task", words, "model")
        return self.task

    def _samples(self, items: Sequence[Item | Sample]) -> list[Sample]:
        unread = [item for item in items if not isinstance(item, Sample)]
        read = iter(self.read(unread) if unread else [])
        return [item if isinstance(item, Sample) else next(read) for item in items]

    def _raw(self, samples: list[Sample]) -> dict[str, Tensor]:
        return {name: stacked_rows([sample.raw[name] for sample in samples]).to(self.device) for name in samples[0].raw}

    def _inputs(self, raw: Mapping[str, Tensor]) -> Inputs:
        count = len(next(iter(raw.values())))
        return self.modality.view("plain", raw, torch.zeros(count, dtype=torch.int64, device=self.device))

    def _vectors(self, inputs: Inputs, pooling: Pooling, coarse: Int8Trunk | None) -> Tensor:
        """(B, D) float32."""
        encoder = self.nets.encoder
        if coarse is not None and coarse.near(pooling).rows >= TRIED_ROWS:
            return _pooled(encoder, inputs, pooling, coarse)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            exact = _pooled(encoder, inputs, pooling).float()
        if coarse is None:
            return exact
        found = _pooled(encoder, inputs, pooling, coarse)
        coarse.tried(pooling, exact, found).check()
        return found


def load(folder: Path | str, device: str = "cpu", half: bool = False) -> LoadedModel:
    """Open a model folder: every file is checked against its manifest before anything is read from it.

    With `half` it computes in bf16 where that keeps its meaning (autocast); weights and vectors stay float32.

    Raises:
        CheckpointError: `invalid_model`, a file is missing, changed or not what `config.json` describes.
    """
    folder = Path(folder)
    _verify(folder)
    config = _config(folder)
    spec = EncoderSpec.model_validate_json(json.dumps(config["backbone"]))
    encoder = build_encoder(spec, config["facts"])
    task = _task(config)
    objective = _objective(config)
    # Only a fill needs the pretraining's head.
    whole = task is None and objective is not None and objective.completes == "fill"
    nets = Nets(encoder) if task is None else task.build(encoder, config["classes"])
    if whole and objective is not None:
        nets = objective.build(encoder)
    _load_weights(nets, folder / "model.safetensors", encoder_only=task is None and not whole)
    return LoadedModel(folder, config, nets, torch.device(device), half)


def _verify(folder: Path) -> None:
    fault = fault_of(folder)
    if fault is not None:
        raise CheckpointError("invalid_model", f"the model folder is damaged: {fault}")
    listed = {file["path"] for file in read_manifest(folder)["files"]}
    for needed in ("config.json", "model.safetensors"):
        if needed not in listed:
            raise CheckpointError("invalid_model", f"the manifest lists no {needed}", needed)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        known = config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError("invalid_model", f"config.json cannot be read: {error}", "config.json") from error
    if known != FORMAT:
        raise CheckpointError("invalid_model", f"the format is {known!r}; this version reads {FORMAT!r}", "config.json")
    return config


def _task(config: dict[str, Any]) -> Task | None:
    if config.get("task") is None:
        return None
    task: Task = TypeAdapter(AnyTask).validate_json(json.dumps(config["task"]))
    return task


def _objective(config: dict[str, Any]) -> Objective | None:
    if config.get("objective") is None:
        return None
    objective: Objective = TypeAdapter(AnyObjective).validate_json(json.dumps(config["objective"]))
    return objective


def _load_weights(nets: Nets, path: Path, encoder_only: bool) -> None:
    """An encoder is served without its pretraining heads, a task with all of its parts."""
    try:
        weights = load_file(path)
        if encoder_only:
            weights = {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}
        nets.load_state_dict(weights, strict=True)
    except (SafetensorError, RuntimeError) as error:
        words = f"model.safetensors does not hold this model: {str(error).splitlines()[0]}"
        raise CheckpointError("invalid_model", words, path.name) from error


def _check_kind(item: Item, number: int, modality: Modality) -> None:
    """Texts in the columns of text, files in those of files, none empty; all of them, or some where that is allowed."""
    where = f"input[{number}]"
    content = item if isinstance(item, Mapping) else dict.fromkeys(_columns_for(item, modality), item)
    missing = [] if modality.partial and content else [None for name in modality.columns if name not in content]
    for name, value in [*content.items(), *(("", absent) for absent in missing)]:
        column = modality.columns.get(name)
        if column is None or not isinstance(value, bytes if column.media else (str, list)):
            kind = "file, such as a picture" if isinstance(value or item, bytes) else "text"
            raise DataError("wrong_modality", f"this is a model for {modality.name} and the input is a {kind}", where)
        if not value or (isinstance(value, str) and not value.strip()):
            raise DataError("empty_input", "the input is empty", where)


def _columns_for(item: object, modality: Modality) -> list[str]:
    """The columns that a lone text or file can be meant for."""
    return [name for name, column in modality.columns.items() if bool(column.media) is isinstance(item, bytes)]


def _as_input(param: str | None) -> str | None:
    """`items.3`, as a modality says it, is `input[3]` to the caller."""
    if param is None or not param.startswith("items."):
        return param
    return f"input[{param.removeprefix('items.')}]"


def _pooled(encoder: Encoder, inputs: Inputs, pooling: Pooling, coarse: Int8Trunk | None = None) -> Tensor:
    """(B, D)."""
    if isinstance(encoder, Transformer) and isinstance(inputs, Tokens):
        packed = pack(inputs)
        hidden = hidden_of(encoder, packed) if coarse is None else coarse.hidden_of(packed)
        return pooled(hidden, packed.lengths, encoder.spec.pooling if pooling == "mean" else pooling)
    if pooling == "mean":
        whole: Tensor = encoder(inputs)
        return whole
    encoded = encoder.encode(inputs)
    return encoded[:, 0] if pooling == "cls" else encoded.amax(dim=1)
