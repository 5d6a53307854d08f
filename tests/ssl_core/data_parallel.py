"""Run under torchrun: gradients of two processes that share a batch, beside those of one that has all of it.

Writes `FOLDER/differences.json`: for each case the largest difference of a gradient, as a share of the largest gradient
of the same parameter's size, and of the loss.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ssl_core import distributed
from ssl_core.batch import Batch, Inputs, Pairs
from ssl_core.learner import TrainStep
from tests.ssl_core.test_contract import CASES, Case, Made, make


def exact(view: Inputs) -> Inputs:
    """The same inputs with pictures and waveforms in float64."""
    if isinstance(view, Tensor):
        return view.double()
    if isinstance(view, Pairs):
        return Pairs(None if view.image is None else view.image.double(), view.text)
    return view


def gradients(made: Made) -> tuple[float, dict[str, Tensor]]:
    """The loss and every gradient of one step, after DDP's mean where there are several processes."""
    # In float64: a fresh net's nearly constant features make some losses magnify the rounding of float32.
    made.nets.double().zero_grad(set_to_none=True)
    for module in made.nets.modules():
        if isinstance(module, _DropoutNd):  # which draws from each process's own generator
            module.p = 0.0
    step = distributed.wrap(TrainStep(made.learner, made.nets))
    views = tuple(exact(view) for view in made.batch.views)
    targets = {name: t.double() if t.is_floating_point() else t for name, t in made.batch.targets.items()}
    loss = step(Batch(views, made.batch.seeds, made.batch.labels, targets))["loss"]
    loss.backward()
    shared = float(distributed.mean(loss.detach()))
    return shared, {name: p.grad.clone() for name, p in made.nets.named_parameters() if p.grad is not None}


def difference(case: Case, folder: Path) -> dict[str, float]:
    """Of this process's share against the kept whole."""
    whole = load_file(folder / "whole.safetensors")
    expected = float(whole.pop("loss"))
    loss, found = gradients(make(case, folder / f"shared{distributed.rank()}"))
    scale = max(float(value.abs().max()) for value in whole.values())
    worst = max(float((found[name] - value).abs().max()) for name, value in whole.items())
    return {"loss": abs(loss - expected) / max(1.0, abs(expected)), "gradient": worst / scale}


def main() -> None:
    folder = Path(sys.argv[1])
    mine = [case for case in CASES if not sys.argv[2:] or str(case) in sys.argv[2:]]
    for case in mine if os.environ["RANK"] == "0" else []:  # the group does not exist yet
        part = folder / str(case)
        loss, found = gradients(make(case, part / "whole"))
        save_file({"loss": torch.tensor(loss, dtype=torch.float64), **found}, part / "whole.safetensors")
    with distributed.process_group():
        distributed.barrier()
        differences = {str(case): difference(case, folder / str(case)) for case in mine}
        distributed.barrier()
        if distributed.is_main():
            (folder / "differences.json").write_text(json.dumps(differences))


if __name__ == "__main__":
    main()
