"""The loop: exact resume, budgets, early stopping, faults."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch
from ssl_core.checkpoint import KEEP
from ssl_core.context import MemoryContext
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader
from ssl_core.encoders import build_encoder
from ssl_core.errors import NonFiniteError, OutOfMemoryError
from ssl_core.guard import Guard
from ssl_core.learner import Outcome, TrainStep
from ssl_core.nets import Nets
from ssl_core.objectives.mlm import MaskedLanguageModelling
from ssl_core.pace import refitted
from ssl_core.spec import Budget, OptimizerSpec, TrainPlan
from ssl_core.trainer import train
from tests.ssl_core import datasets


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("trainer")
    return prepared(datasets.TEXT, datasets.text_dataset(root / "data"), root / "cache", None, MemoryContext(root))


def plan(**fields: Any) -> TrainPlan:
    return TrainPlan.model_validate(
        {
            "budget": Budget(steps=12), "batch_size": 8, "optimizer": OptimizerSpec(), "learning_rate": 1e-3, "seed": 1,
            "precision": "fp32", "compile": False, "validation_fraction": 0.0, "checkpoint_every_steps": None,
            "patience": None, **fields,
        }
    )  # fmt: skip


class Scripted:
    """An evaluation whose scores are given beforehand."""

    watched: str | None = "validation/accuracy"
    lower_is_better = False
    guard: Guard | None = None

    def __init__(self, scores: list[float]) -> None:
        self.scores = iter(scores)

    def every(self, total_steps: int, steps_per_epoch: int) -> int:
        return 2

    def measure(self, nets: Nets) -> dict[str, float]:
        return {"validation/accuracy": next(self.scores)}

    def warnings(self, metrics: dict[str, float]) -> dict[str, str]:
        return {"low": "the score is low"} if metrics["validation/accuracy"] < 0.5 else {}


class Run:
    """One call of `train` on fresh nets."""

    def __init__(self, shards: Path, workdir: Path, **fields: Any) -> None:
        source = datasets.TEXT.open(shards)
        torch.manual_seed(0)
        learner = MaskedLanguageModelling()
        self.nets = learner.build(build_encoder(EncoderSpec.model_validate(datasets.TINY_TEXT), source.facts))
        indices = np.arange(source.count("row"))
        self.loader = Loader(source, datasets.TEXT, learner.views, indices=indices, batch_size=8, seed=1)
        self.context = fields.pop("context", None) or MemoryContext(workdir)
        resume, evaluation, self.step = (
            fields.pop("resume", None),
            fields.pop("evaluation", None),
            TrainStep(learner, self.nets),
        )
        self.step.learner = fields.pop("learner", learner)
        self.outcome: Outcome = train(self.step, self.loader, plan(**fields), self.context, evaluation, resume)

    def points(self) -> dict[tuple[int, str], float]:
        rows = [event for event in self.context.events if event["type"] == "metrics"]
        named = {(row["step"], name): value for row in rows for name, value in row["values"].items()}
        return {key: value for key, value in named.items() if not key[1].startswith(("time/", "throughput"))}


class StopOnceFitted(MemoryContext):
    """Asks for a stop as soon as the length of a `minutes` run is known: no matter how fast the machine is."""

    def emit(self, type: str, **fields: Any) -> None:
        super().emit(type, **fields)
        if fields.get("code") == "schedule_fitted":
            self.stop = "pause"


class StopAfter(MemoryContext):
    """Says drain once `steps` steps are done."""

    def __init__(self, workdir: Path, steps: int) -> None:
        super().__init__(workdir)
        self.left = steps

    def should_stop(self) -> Any:
        self.left -= 1
        return "drain" if self.left < 0 else None


def newest(workdir: Path) -> Path:
    return max((workdir / "checkpoints").glob("step-*"))


def same(first: Nets, second: Nets) -> bool:
    other: dict[str, Tensor] = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_a_resumed_run_is_bit_identical_inside_an_epoch_and_at_its_boundary(shards: Path, tmp_path: Path) -> None:
    whole = Run(shards, tmp_path / "whole", budget=Budget(steps=30))
    boundary = whole.loader.steps_per_epoch
    for steps in (1, boundary - 1, boundary, boundary + 3):
        folder = tmp_path / str(steps)
        first = Run(shards, folder, budget=Budget(steps=30), context=StopAfter(folder, steps))
        assert first.outcome.status == "stopped" and first.outcome.state.step == steps
        second = Run(shards, folder, budget=Budget(steps=30), resume=newest(folder))
        assert same(whole.nets, second.nets)
        assert first.points() | second.points() == whole.points()


def test_a_resumed_run_in_bf16_is_bit_identical(shards: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"precision": "bf16", "budget": Budget(steps=15)}
    whole = Run(shards, tmp_path / "whole", **fields)
    assert not same(whole.nets, Run(shards, tmp_path / "fp32", budget=Budget(steps=15)).nets)
    for steps in (1, 6):
        folder = tmp_path / str(steps)
        first = Run(shards, folder, **fields, context=StopAfter(folder, steps))
        second = Run(shards, folder, **fields, resume=newest(folder))
        assert same(whole.nets, second.nets)
        assert first.points() | second.points() == whole.points()


def test_resume_also_restores_the_generators_of_python_and_numpy(shards: Path, tmp_path: Path) -> None:
    Run(shards, tmp_path, context=StopAfter(tmp_path, 4))
    expected = (random.random(), float(np.random.rand()), float(torch.rand(1)))
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    Run(shards, tmp_path, resume=newest(tmp_path), context=StopAfter(tmp_path, 0))
    assert (random.random(), float(np.random.rand()), float(torch.rand(1))) == expected


def test_running_sums_cross_a_resume_in_the_middle_of_a_logging_window(shards: Path, tmp_path: Path) -> None:
    whole = Run(shards, tmp_path / "whole", budget=Budget(steps=1200), context=StopAfter(tmp_path / "whole", 20))
    assert whole.outcome.state.log_every == 2
    first = Run(shards, tmp_path / "part", budget=Budget(steps=1200), context=StopAfter(tmp_path / "part", 7))
    again = StopAfter(tmp_path / "part", 20)
    second = Run(shards, tmp_path / "part", budget=Budget(steps=1200), resume=newest(tmp_path / "part"), context=again)
    points = first.points() | second.points()
    assert points[8, "train/loss"] == whole.points()[8, "train/loss"]


def test_checkpoints_are_taken_on_time_and_the_oldest_dropped(shards: Path, tmp_path: Path) -> None:
    run = Run(shards, tmp_path, checkpoint_every_steps=2)
    told = [event["step"] for event in run.context.events if event["type"] == "checkpoint"]
    assert told == [2, 4, 6, 8, 10, 12]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [f"step-{step:09d}" for step in told[-KEEP:]]


def test_a_checkpoint_holds_tensors_and_json_by_parameter_name(shards: Path, tmp_path: Path) -> None:
    run = Run(shards, tmp_path)
    folder = newest(tmp_path)
    files = {path.name for path in folder.iterdir()}
    assert files == {"nets.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", "manifest.json"}
    moments = {name for name in load_file(folder / "optimizer.safetensors") if name.startswith("exp_avg/")}
    assert moments == {f"exp_avg/{name}" for name, _ in run.nets.named_parameters()}
    assert json.loads((folder / "state.json").read_text())["step"] == 12


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"steps": 7}, 7), ({"epochs": 0.5}, None), ({"examples": 33}, 5), ({"tokens": 24 * 8 * 3}, 3)],
)
def test_every_budget_becomes_a_number_of_steps(
    shards: Path, tmp_path: Path, budget: dict[str, Any], steps: int | None
) -> None:
    run = Run(shards, tmp_path, budget=Budget(**budget))
    assert run.outcome.state.step == (steps or round(run.loader.steps_per_epoch * 0.5))


def test_a_budget_of_minutes_fixes_its_schedule_and_a_resume_keeps_it(shards: Path, tmp_path: Path) -> None:
    budget = Budget(minutes=0.04)
    first = Run(shards, tmp_path, budget=budget, context=StopOnceFitted(tmp_path))
    total = first.outcome.state.total_steps
    assert total >= first.outcome.state.step > 0
    assert [event["code"] for event in first.context.events if event["type"] == "message"] == ["schedule_fitted"]
    second = Run(shards, tmp_path, budget=budget, resume=newest(tmp_path))
    told = [event["code"] for event in second.context.events if event["type"] == "message"]
    assert told[0] == "resumed" and "schedule_fitted" not in told
    assert second.outcome.state.step == second.outcome.state.total_steps
    assert total == second.outcome.state.total_steps or "schedule_refitted" in told
    assert second.outcome.state.elapsed >= first.outcome.state.elapsed


class SlowAtFirst(MaskedLanguageModelling):
    """Each of its first twenty losses takes a tenth of a second more."""

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        calls: list[int] = nets.__dict__.setdefault("calls", [])
        if len(calls) < 20:
            time.sleep(0.1)
        calls.append(1)
        return super().loss(nets, batch)


def test_a_budget_of_minutes_follows_a_machine_that_becomes_faster(shards: Path, tmp_path: Path) -> None:
    run = Run(shards, tmp_path, budget=Budget(minutes=0.1), learner=SlowAtFirst())
    told = [event["message"] for event in run.context.events if event.get("code") == "schedule_refitted"]
    assert told and "instead of" in told[0]
    fitted = next(event["message"] for event in run.context.events if event.get("code") == "schedule_fitted")
    assert run.outcome.state.step == run.outcome.state.total_steps > int(fitted.split()[3])
    assert run.outcome.state.elapsed > 0.6 * 6


class SlowLater(MaskedLanguageModelling):
    """Each loss after the first sixty takes a third of a second."""

    def loss(self, nets: Nets, batch: Batch) -> dict[str, Tensor]:
        calls: list[int] = nets.__dict__.setdefault("calls", [])
        if len(calls) >= 60:
            time.sleep(0.33)
        calls.append(1)
        return super().loss(nets, batch)


def test_a_budget_of_minutes_is_kept_on_a_machine_that_becomes_very_slow(shards: Path, tmp_path: Path) -> None:
    run = Run(shards, tmp_path, budget=Budget(minutes=0.1), learner=SlowLater())
    fitted = next(event["message"] for event in run.context.events if event.get("code") == "schedule_fitted")
    planned = int(fitted.split()[3])
    # A lap by steps is a twentieth of them: with a third of a second each the first one alone would outlast the budget.
    assert run.outcome.state.step == run.outcome.state.total_steps < planned
    assert run.outcome.state.elapsed < 1.5 * 6


@pytest.mark.parametrize(("pace", "total"), [(1.0, 100), (1.1, 100), (2.0, 75), (0.5, 150), (0.0, 100)])
def test_a_schedule_is_refitted_where_the_pace_has_changed_by_a_fifth(pace: float, total: int) -> None:
    assert refitted(step=50, total=100, seconds=50.0, pace=pace) == total


def test_the_learning_rate_warms_up_and_decays(shards: Path, tmp_path: Path) -> None:
    run = Run(shards, tmp_path, budget=Budget(steps=20), optimizer=OptimizerSpec(warmup_fraction=0.2))
    rates = [run.points()[step, "train/learning_rate"] for step in range(1, 21)]
    assert rates[:4] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[-1] < 2e-5


def test_training_stops_when_the_score_stops_rising_and_keeps_the_best_weights(shards: Path, tmp_path: Path) -> None:
    scores = Scripted([0.1, 0.5, 0.9, 0.8, 0.7, 0.99])
    run = Run(shards, tmp_path, patience=2, evaluation=scores, budget=Budget(steps=40))
    assert (run.outcome.state.step, run.outcome.state.best_step) == (8, 4)
    best = load_file(newest(tmp_path) / "best.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in run.nets.state_dict().items())
    last = load_file(newest(tmp_path) / "nets.safetensors")
    assert not all(torch.equal(value, last[name]) for name, value in best.items())


def test_early_stopping_crosses_a_resume(shards: Path, tmp_path: Path) -> None:
    budget = Budget(steps=40)
    whole = Run(shards, tmp_path / "w", patience=2, budget=budget, evaluation=Scripted([0.1, 0.9, 0.8, 0.7]))
    folder = tmp_path / "p"
    Run(shards, folder, patience=2, budget=budget, evaluation=Scripted([0.1, 0.9, 0.8]), context=StopAfter(folder, 5))
    second = Run(shards, folder, patience=2, budget=budget, evaluation=Scripted([0.7]), resume=newest(folder))
    assert second.outcome.state.step == whole.outcome.state.step == 6
    assert same(whole.nets, second.nets)


def test_a_resume_before_the_first_step_does_not_count_its_score_again(shards: Path, tmp_path: Path) -> None:
    Run(shards, tmp_path, patience=2, evaluation=Scripted([0.5]), context=StopAfter(tmp_path, 0))
    again = StopAfter(tmp_path, 0)
    second = Run(shards, tmp_path, patience=2, evaluation=Scripted([]), resume=newest(tmp_path), context=again)
    assert (second.outcome.state.best, second.outcome.state.stale) == (0.5, 0)


def test_a_warning_is_sent_once(shards: Path, tmp_path: Path) -> None:
    run = Run(shards, tmp_path, evaluation=Scripted([0.1] * 7))
    assert [event["code"] for event in run.context.events if event["type"] == "message"] == ["low"]


def test_an_evaluation_does_not_change_the_run(shards: Path, tmp_path: Path) -> None:
    class Noisy(Scripted):
        watched = None

        def measure(self, nets: Nets) -> dict[str, float]:
            torch.rand(100)
            return super().measure(nets)

    assert same(Run(shards, tmp_path / "a").nets, Run(shards, tmp_path / "b", evaluation=Noisy([0.6] * 9)).nets)


def test_a_loss_that_is_not_finite_names_its_step(shards: Path, tmp_path: Path) -> None:
    class Explodes(MaskedLanguageModelling):
        def loss(self, nets: Nets, batch: Any) -> dict[str, Tensor]:
            explodes.calls += 1
            values = super().loss(nets, batch)
            return {**values, "loss": values["loss"] * float("inf")} if explodes.calls == 6 else values

    class explodes:
        calls = -1  # the first call measures the FLOPs of a step

    with pytest.raises(NonFiniteError) as error:
        Run(shards, tmp_path, learner=Explodes(), checkpoint_every_steps=2)
    assert "at step 6" in error.value.message and "learning_rate" in error.value.message
    assert newest(tmp_path).name == "step-000000004"


def test_running_out_of_memory_is_said_with_what_to_change(shards: Path, tmp_path: Path) -> None:
    class Greedy(MaskedLanguageModelling):
        def loss(self, nets: Nets, batch: Any) -> dict[str, Tensor]:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"
            )

    with pytest.raises(OutOfMemoryError) as error:
        Run(shards, tmp_path, learner=Greedy())
    assert error.value.param == "batch_size" and error.value.error_class == "oom"


def test_every_run_reports_its_speed(shards: Path, tmp_path: Path) -> None:
    run = Run(shards, tmp_path)
    rows = [event["values"] for event in run.context.events if event["type"] == "metrics"]
    names = {"examples_per_second", "tokens_per_second", "peak_memory_bytes", "mfu"}
    assert {f"throughput/{name}" for name in names} | {"time/step_seconds", "time/data_wait_share"} <= set(rows[-1])
    assert 0 < rows[-1]["throughput/mfu"] < 1.5
    assert 0 <= rows[-1]["time/data_wait_share"] <= 1
