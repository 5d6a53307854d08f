"""Two processes that share a batch do as one that has it: every objective and task, and a whole run with a stop."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssl_core.run import run
from ssl_core.run_context import FileContext
from tests.ssl_core import datasets
from tests.ssl_core.test_contract import CASES

ROOT = Path(__file__).parents[2]


def torchrun(*arguments: str) -> None:
    """Two processes of a module, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, "-m", *arguments]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_gradient_of_two_processes_is_that_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    torchrun("tests.ssl_core.data_parallel", str(tmp_path))
    found: dict[str, dict[str, float]] = json.loads((tmp_path / "differences.json").read_text())
    assert set(found) == {str(case) for case in CASES}
    assert {name: values for name, values in found.items() if max(values.values()) > 1e-6} == {}


SPEC: dict[str, Any] = {
    "type": "pretrain", "objective": {"name": "simclr"}, "dataset": "ds_toy", "modality": datasets.IMAGE,
    "backbone": datasets.TINY_IMAGE, "batch_size": 16, "seed": 5, "budget": {"steps": 16}, "validation_fraction": 0.0,
}  # fmt: skip


def test_a_run_of_two_processes_ends_as_one_of_one_does(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = {"ds_toy": datasets.image_dataset(tmp_path / "data")}
    for name in ("one", "two"):
        datasets.order(tmp_path / name, SPEC, data)
    assert run(tmp_path / "one", FileContext(tmp_path / "one"))["status"] == "succeeded"
    torchrun("ssl_core.run", str(tmp_path / "two"))
    one, two = (load_file(tmp_path / name / "artifact/model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    # Sums of another order round otherwise, and sixteen steps make more of it on some processors than on others.
    alone, together = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(alone) == len(together) == 16
    assert alone[:5] == pytest.approx(together[:5], rel=1e-3) and alone == pytest.approx(together, rel=2e-2)
    far = {name: float((one[name] - two[name]).abs().max() / (one[name].abs().max() + 0.02)) for name in one}
    assert max(far.values()) < 0.1, far


def losses(folder: Path) -> list[float]:
    """Of each step of a run."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event["values"]["train/loss"] for event in events if "train/loss" in event.get("values", {})]
