"""The guard: what ends a run, what only warns, and that a resume changes nothing of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ssl_core.backbones import EncoderSpec
from ssl_core.encoders import build_encoder
from ssl_core.guard import EVERY, PATIENCE, STRIKES, Guard, Pulse, advice
from ssl_core.nets import Nets
from ssl_core.objectives import OBJECTIVES
from ssl_core.run import run
from ssl_core.run_context import FileContext
from tests.ssl_core import datasets

ALIVE: Pulse = {"effective_rank": 20.0, "effective_rank_share": 0.2, "spread_mean": 0.3}
DEAD: Pulse = {"effective_rank": 1.1, "effective_rank_share": 0.011, "spread_mean": 0.01}


def nets() -> Nets:
    torch.manual_seed(0)
    spec = EncoderSpec(name="custom", family="convnet", width=16, depth=2)
    return Nets(build_encoder(spec, {"channels": 1, "size": 8}))


def looked(pulses: list[Pulse], losses: list[float], constant_wins: bool = True) -> list[str | None]:
    """The verdict after each look."""
    script, memory, told = iter(pulses), dict[str, float](), []
    guard = Guard(lambda _: next(script), "fail", constant_wins=constant_wins)
    for at, loss in enumerate(losses):
        memory = json.loads(json.dumps(memory))  # as through a checkpoint
        values = guard.look(nets(), {"loss": loss}, memory)
        told.append(guard.verdict(values, {"loss": loss}, memory, at * EVERY))
    return told


def test_a_dead_representation_is_given_three_looks() -> None:
    told = looked([ALIVE, DEAD, DEAD, *[ALIVE] * 3, DEAD, DEAD, DEAD], [1.0] * 9)
    assert told[:-1] == [None] * 8 and STRIKES == 3
    assert told[-1] is not None
    assert all(word in told[-1] for word in ("step 200", "effective rank 1.1", "20.0", "optimizer.learning_rate"))


def test_a_dead_representation_that_twitches_is_dead() -> None:
    told = looked([ALIVE, DEAD, ALIVE, DEAD, ALIVE, DEAD], [1.0] * 6)
    assert told[:-1] == [None] * 5 and told[-1] is not None and "step 125" in told[-1]
    assert looked([DEAD, *[ALIVE, ALIVE, DEAD] * 6], [1.0] * 19) == [None] * 19


def test_a_low_rank_is_given_longer_where_a_constant_cannot_satisfy_the_loss() -> None:
    told = looked([ALIVE, *[DEAD] * PATIENCE], [1.0] * (PATIENCE + 1), constant_wins=False)
    assert told[:-1] == [None] * PATIENCE and told[-1] is not None and "step 500" in told[-1]
    left = [ALIVE, *[DEAD] * (PATIENCE - 1), ALIVE, *[DEAD] * (PATIENCE - 1)]
    assert looked(left, [1.0] * len(left), constant_wins=False) == [None] * len(left)
    told = looked([ALIVE] * 5, [2.0, 7.5, 7.5, 7.5, 7.5], constant_wins=False)
    assert told[3] is not None and "diverges" in told[3]


def test_which_objectives_a_constant_satisfies() -> None:
    judged = {name for name, objective in OBJECTIVES.items() if objective.constant_wins}
    told = {"denoising", "mae", "masked_spectrogram", "mlm", "next_token", "replaced_token"}
    assert set(OBJECTIVES) - judged == told


def test_features_that_were_born_close_together_are_not_called_dead() -> None:
    born = {"effective_rank": 1.4, "effective_rank_share": 0.014, "spread_mean": 0.04}
    assert looked([born, born, born, born], [1.0] * 4) == [None] * 4


def test_a_loss_that_trebles_is_called_diverging_with_both_numbers() -> None:
    told = looked([ALIVE] * 5, [2.0, 7.5, 7.5, 7.5, 7.5])
    assert told[:3] == [None] * 3
    assert told[3] is not None and "7.5" in told[3] and "it was 2" in told[3]


@pytest.mark.parametrize("losses", [[0.1, 0.9, 0.9, 0.9], [-1.0, 0.5, 0.5, 0.5], [9.0, 20.0, 20.0, 20.0]])
def test_a_loss_that_only_wanders_is_left_alone(losses: list[float]) -> None:
    assert looked([ALIVE] * 4, losses) == [None] * 4


def test_features_poorer_than_at_the_start_are_told() -> None:
    memory: dict[str, float] = {}
    script = iter([ALIVE] + [{**ALIVE, "effective_rank": 4.0}] * 3)
    guard = Guard(lambda _: next(script), "fail")
    told = []
    for _ in range(4):
        told.append(advice(guard.look(nets(), {"loss": 1.0}, memory), memory))
    assert told[:3] == [None] * 3 and told[3] is not None and "20.0" in told[3]


def pictures(folder: Path, rows: int = 256) -> Path:
    """Smooth pictures of many colours and shapes, so that a fresh encoder tells them apart."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (rows, 4, 4, 3), dtype=np.uint8)
    images = [datasets.png(np.kron(one, np.ones((8, 8, 1), dtype=np.uint8))) for one in coarse]
    columns = {
        "image": images, "width": pa.array([32] * rows, pa.int32()), "height": pa.array([32] * rows, pa.int32()),
        "channels": pa.array([3] * rows, pa.int32()), "label": pa.array([None] * rows, pa.string()),
        "source": [f"toy.zip:{row}" for row in range(rows)],
    }  # fmt: skip
    profile = {"modality": "image", "characters": 0, "width": 32, "height": 32, "channels": 3}
    return datasets.write_dataset(folder, columns, profile)


ABSURD = {"objective": {"name": "simclr", "temperature": 0.01},
          "optimizer": {"name": "sgd", "learning_rate": 10.0, "clip_norm": 1000.0, "schedule": "constant"}}  # fmt: skip


def collapse(folder: Path, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The verdict and the events of a run that cannot go well."""
    torch.set_num_threads(1)
    backbone = {"name": "custom", "family": "convnet", "width": 32, "depth": 3, "stem": "large"}
    shape = {"modality": datasets.IMAGE.model_copy(update={"size": 32}), "backbone": backbone, "batch_size": 64}
    common = {"type": "pretrain", "dataset": "ds_toy", "seed": 1, "budget": {"steps": 200}}
    spec = {**common, **shape, **ABSURD, **fields}
    datasets.order(folder, spec, {"ds_toy": pictures(folder.parent / f"{folder.name}-data")})
    verdict = run(folder, FileContext(folder))
    return verdict, [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_provoked_collapse_ends_the_run_within_a_hundred_steps_and_says_why(tmp_path: Path) -> None:
    verdict, events = collapse(tmp_path / "run")
    assert verdict["status"] == "failed" and verdict["error"]["code"] == "collapsed", verdict
    assert verdict["error"]["class"] == "user" and verdict["error"]["param"] == "optimizer.learning_rate"
    ranks = {event["step"]: event["values"]["guard/effective_rank"] for event in events
             if event["type"] == "metrics" and "guard/effective_rank" in event["values"]}  # fmt: skip
    collapsed = min(step for step, rank in ranks.items() if rank < 1.5)
    assert max(ranks) - collapsed <= 100, ranks
    assert f"at step {max(ranks)}" in verdict["error"]["message"]
    assert any(event["type"] == "checkpoint" and event["step"] == max(ranks) for event in events)


def test_byol_without_its_predictor_is_ended_though_batch_normalisation_hides_the_collapse(tmp_path: Path) -> None:
    objective = {"name": "byol", "predictor_layers": 0, "momentum": 0.5, "projector_hidden": 64, "projector_dim": 32}
    verdict, events = collapse(tmp_path / "run", objective=objective, optimizer={"learning_rate": 1e-2})
    assert verdict["status"] == "failed" and verdict["error"]["code"] == "collapsed", verdict
    assert "target_evenness is 0.0" in verdict["error"]["message"]
    evenness = {event["step"]: event["values"]["train/target_evenness"] for event in events
                if event["type"] == "metrics" and "train/target_evenness" in event["values"]}  # fmt: skip
    dead = min(step for step, value in evenness.items() if value < 0.05)
    assert max(evenness) - dead <= 100


def test_a_run_that_may_collapse_goes_on_with_a_warning(tmp_path: Path) -> None:
    verdict, events = collapse(tmp_path / "run", on_collapse="warn")
    assert verdict["status"] == "succeeded"
    told = [event for event in events if event["type"] == "message" and event["code"] == "collapsed"]
    assert len(told) == 1 and told[0]["level"] == "warning"
