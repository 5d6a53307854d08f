"""Checkpoints: everything that decides the next step, in safetensors and JSON, committed by rename.

`nets.safetensors` weights and buffers (teachers, queues, centres) · `optimizer.safetensors` state by parameter name ·
`rng.safetensors` generators of torch, CUDA, numpy and python, by rank · `best.safetensors` the best weights so far,
where a score is watched · `state.json` step, schedule, counters. The sampler has no state: the batch of step s is a
function of (seed, s).
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_core.context import RunContext
from ssl_core.durable import committed, fault_of, read_manifest
from ssl_core.errors import CheckpointError
from ssl_core.optim import optimizer_tensors, restore_optimizer
from ssl_core.run_context import plain

KEEP = 3  # two must survive (R15); the third spares a supervisor that is still uploading it


@dataclass
class TrainState:
    """What the loop knows besides tensors. All of it is in `state.json`.

    Attributes:
        step: optimizer steps done.
        total_steps: length of the schedule; 0 while a `minutes` budget still measures.
        log_every, evaluate_every: cadences, fixed together with `total_steps`.
        elapsed: seconds of training, over all attempts.
        examples: samples seen.
        sums, counted: running sums of the logged values since the last metrics row (float64, exact in JSON).
        best, best_step: the watched metric's best value and its step.
        stale: evaluations since the best.
        evaluated: step of the last evaluation; -1 before the first.
        metrics: the latest value of every reproducible series.
        best_metrics: what was measured beside it.
        warned: codes of messages already sent once.
        guard: what the guard remembers; `guarded`, `guarded_count`: sums since its last look.
        threads: torch's intra-op threads; 0 before the first checkpoint.
    """

    step: int = 0
    total_steps: int = 0
    log_every: int = 1
    evaluate_every: int = 0
    elapsed: float = 0.0
    examples: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    evaluated: int = -1
    threads: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best_metrics: dict[str, float] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)
    guard: dict[str, float] = field(default_factory=dict)
    guarded: dict[str, float] = field(default_factory=dict)
    guarded_count: int = 0


def folder_name(step: int) -> str:
    return f"step-{step:09d}"


def save(
    workdir: Path,
    nets: nn.Module,
    optimizer: Optimizer,
    state: TrainState,
    best: dict[str, Tensor] | None,
    generators: list[dict[str, Tensor]],
) -> Path:
    """Commit `workdir/checkpoints/step-…` and drop the oldest beyond `KEEP`. `generators`: `rng_tensors` by rank.

    Raises:
        OSError: the disk is full or failing; the checkpoints before it are untouched.
    """
    final = workdir / "checkpoints" / folder_name(state.step)
    with committed(final, step=state.step, metrics=plain(state.metrics)) as folder:
        write_tensors(folder / "nets.safetensors", nets.state_dict())
        write_tensors(folder / "optimizer.safetensors", optimizer_tensors(optimizer, nets))
        states = {f"{rank}/{name}": state for rank, own in enumerate(generators) for name, state in own.items()}
        write_tensors(folder / "rng.safetensors", states)
        if best is not None:
            write_tensors(folder / "best.safetensors", best)
        (folder / "state.json").write_text(json.dumps(plain(asdict(state))))
    for old in sorted(final.parent.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Every tensor as its own contiguous CPU copy: safetensors refuses memory shared between names (tied weights)."""
    save_file({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}, path)


def first_good(candidates: list[Path], context: RunContext) -> Path | None:
    """The newest candidate that verifies; None when none was given.

    Raises:
        CheckpointError: some were given and none is good: starting again at step 0 in silence would be worse.
    """
    for folder in candidates:
        fault = fault_of(folder)
        if fault is None:
            return folder
        text = f"Checkpoint {folder.name} is damaged: {fault}. Falling back to the one before it."
        context.emit("message", level="warning", code="checkpoint_fallback", message=text)
    if candidates:
        text = f"none of the {len(candidates)} checkpoints of this run is whole; start the job again from the beginning"
        raise CheckpointError("no_valid_checkpoint", text)
    return None


def restore(folder: Path, nets: nn.Module, optimizer: Optimizer) -> tuple[TrainState, dict[str, Tensor] | None]:
    """Fill `nets` and `optimizer` from a verified checkpoint. Generators are restored apart, last (R13).

    Raises:
        CheckpointError: it was made by another spec: names or shapes differ.
    """
    try:
        nets.load_state_dict(load_file(folder / "nets.safetensors"))
        restore_optimizer(optimizer, nets, load_file(folder / "optimizer.safetensors"))
    except (KeyError, RuntimeError) as error:
        text = f"checkpoint {folder.name} does not fit this spec: {str(error).splitlines()[0]}"
        raise CheckpointError("checkpoint_mismatch", text) from error
    values: dict[str, Any] = json.loads((folder / "state.json").read_text())
    kept = folder / "best.safetensors"
    return TrainState(**values), load_file(kept) if kept.exists() else None


def step_of(folder: Path) -> int:
    """The step a checkpoint folder was saved at."""
    return int(read_manifest(folder)["step"])


def rng_tensors() -> dict[str, Tensor]:
    """The state of every generator of this process, as tensors."""
    version, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=True)
    _, keys, position, has_gauss, cached = legacy
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": torch.tensor([float(position), float(has_gauss), float(cached)], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        tensors |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors


def restore_rng(folder: Path, rank: int) -> None:
    """Set every generator to where the checkpoint left that process's; a device that is not here keeps its own.

    Where there are more processes than before, the new ones take the first one's."""
    saved = load_file(folder / "rng.safetensors")
    prefix = f"{rank}/" if f"{rank}/torch" in saved else "0/"
    tensors = {name.removeprefix(prefix): state for name, state in saved.items() if name.startswith(prefix)}
    torch.set_rng_state(tensors["torch"])
    version, *words = (int(word) for word in tensors["python"].tolist())
    gauss = tensors["python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    position, has_gauss, cached = tensors["numpy_rest"].tolist()
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), float(cached)))
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda{index}"], index)
