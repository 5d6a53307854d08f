"""torch.compile: the same losses and gradients, the same runs, and a run that goes on where there is no compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_core.compiled import compile_loss
from ssl_core.learner import TrainStep
from tests.ssl_core import datasets
from tests.ssl_core.test_contract import CASES, Case, make
from tests.ssl_core.toys import TOYS

ONCE = list({(case.kind, case.name): case for case in CASES if case.name != "translation"}.values())
"""One modality of each learner. Translation decodes with dropout drawn in another order when compiled."""
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What one test compiled is not kept for the next."""
    yield
    torch.compiler.reset()


def gradients(step: TrainStep, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one step, and buffers as before it."""
    kept = {name: buffer.clone() for name, buffer in step.nets.named_buffers()}
    torch.manual_seed(1)
    loss = step(batch)["loss"]
    loss.backward()
    for name, buffer in step.nets.named_buffers():
        buffer.data.copy_(kept[name])
    found = {name: p.grad.clone() for name, p in step.nets.named_parameters() if p.grad is not None}
    step.nets.zero_grad(set_to_none=True)
    return loss.detach(), found


@pytest.mark.parametrize("case", ONCE, ids=str)
def test_a_traced_step_has_the_loss_and_gradients_of_the_written_one(case: Case, tmp_path: Path) -> None:
    made = make(case, tmp_path)
    step = TrainStep(made.learner, made.nets)
    written, expected = gradients(step, made.batch)
    # The tracing is ours to get right; kernels are the compiler's (one run below).
    step.compiled = torch.compile(made.learner.loss, backend="aot_eager")
    traced, found = gradients(step, made.batch)
    torch.testing.assert_close(traced, written, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("name", ["next_token", "byol"])
def test_a_compiled_run_walks_with_the_written_one(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name and case.modality in ("text", "image"))
    run_folders = [tmp_path / "written", tmp_path / "compiled"]
    data = {"ds_toy": TOYS[case.modality].write(tmp_path / "data")}
    for folder, wanted in zip(run_folders, (False, True), strict=True):
        # Compiled dropout draws other numbers, and on processors hashes come out otherwise in rows that fill no vector.
        settings = {"precision": "fp32", "validation_fraction": 0.0, "backbone": {**case.backbone(), "dropout": 0.0}}
        spec = case.spec(budget={"steps": 6}, compile=wanted, **settings)
        datasets.order(folder, spec, data)
        # In a process of its own, as compilers leave threads and children behind.
        subprocess.run([sys.executable, "-m", "ssl_core.run", str(folder)], check=True, timeout=300)
    assert [event["code"] for event in datasets.events(run_folders[1], "message")].count("compiled") == 1
    losses = [
        {step: value for (step, series), value in datasets.series(folder).items() if series == "train/loss"}
        for folder in run_folders
    ]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_run_without_a_compiler_goes_on_and_says_so(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "simclr" and case.modality == "image")
    folder = tmp_path / "run"
    data = {"ds_toy": TOYS[case.modality].write(tmp_path / "data")}
    datasets.order(folder, case.spec(budget={"steps": 3}, compile=True), data)
    missing = {"CXX": "/nowhere/c++", "PATH": "/nowhere", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "ssl_core.run", str(folder)], env=missing, check=True, timeout=300)
    refused = [event for event in datasets.events(folder, "message") if event["code"] == "compile_refused"]
    assert len(refused) == 1
    assert refused[0]["level"] == "warning"
    assert max(event["step"] for event in datasets.events(folder, "metrics")) == 3


def fails(error: Exception, *_: Any) -> Callable[..., Any]:
    raise error


def test_a_refused_step_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(next(case for case in CASES if case.name == "byol"), tmp_path)
    step = TrainStep(made.learner, made.nets)
    before = {name: value.clone() for name, value in step.nets.state_dict().items()}
    generator = torch.get_rng_state()
    monkeypatch.setattr(torch, "compile", lambda _: partial(fails, ValueError("no such kernel\nand its trace")))
    assert compile_loss(step, made.batch, torch.autocast("cpu", enabled=False)) == "no such kernel"
    assert step.compiled is None
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in step.nets.state_dict().items())
    assert all(parameter.grad is None for parameter in step.nets.parameters())


def test_too_little_memory_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(next(case for case in CASES if case.name == "byol"), tmp_path)
    monkeypatch.setattr(torch, "compile", lambda _: partial(fails, torch.OutOfMemoryError("too much")))
    with pytest.raises(torch.OutOfMemoryError):
        compile_loss(TrainStep(made.learner, made.nets), made.batch, torch.autocast("cpu", enabled=False))
