"""The comparison with other libraries: its arithmetic and its table (the peers themselves are not needed)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.peers.__main__ import known_objectives, sides_of, summary
from benchmarks.peers.ours import spec_of
from benchmarks.peers.report import table, verdict, write
from benchmarks.peers.rows import GPU_ROWS, ROWS, Row


def ran(value: float, cpu_s: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "wall_s": 10.0, "cpu_s": cpu_s, "peak_rss_mib": 100.0, "loadavg_1m": 1.0, **more}


def test_ratios_are_taken_inside_a_round() -> None:
    rounds = [{"default": ran(100, 5), "ours": ran(300, 5)}, {"default": ran(10, 10), "ours": ran(20, 10)}]
    wall = summary(rounds, {"default": [], "ours": []})["ratios"]["ours/default"]["wall"]
    assert wall == {"median": 2.5, "min": 2.0, "max": 3.0}


def test_the_processor_ratio_leaves_out_the_time_a_neighbour_took() -> None:
    rounds = [{"default": ran(100, 10), "ours": ran(100, 5)}]
    assert summary(rounds, {"default": [], "ours": []})["ratios"]["ours/default"]["cpu"]["median"] == 2.0


@pytest.mark.parametrize(("wall", "cpu", "told"), [(3, 3, "yes"), (1, 1, "no"), (3, 1, "unsure"), (2, 2, "yes")])
def test_a_goal_is_met_where_both_clocks_say_so(wall: float, cpu: float, told: str) -> None:
    assert verdict({"wall": {"median": wall}, "cpu": {"median": cpu}}, 2.0) == told


def test_a_row_that_failed_says_why_in_the_table() -> None:
    row = {"title": "MAE", "goals": [1.5, 1.3], "error": "hf_mae.py: exit 1, no such module", "note": "", "rounds": 0}
    assert "not measured: hf_mae.py: exit 1, no such module" in table({"device": "cpu", "rows": {"mae": row}})


def test_a_row_measured_again_takes_its_own_place_only(tmp_path: Path) -> None:
    row = {"title": "T", "goals": [1, 1], "note": "", "rounds": 0}
    write(tmp_path, {**row, "row": "mae", "error": "first"}, "cpu")
    write(tmp_path, {**row, "row": "mlm", "error": "kept"}, "cpu")
    write(tmp_path, {**row, "row": "mae", "error": "second"}, "cpu")
    text = (tmp_path / "peers_cpu.md").read_text()
    assert "kept" in text
    assert "second" in text
    assert "first" not in text


@pytest.mark.parametrize("row", ROWS + GPU_ROWS, ids=lambda row: row.name)
def test_every_row_is_a_job_the_engine_takes(row: Row) -> None:
    assert row.ours["objective"]["name"] in known_objectives()
    spec = spec_of(row, argparse.Namespace(recipe=False, batch=row.batch, device=torch.device("cpu")))
    assert spec.precision == "fp32"
    assert spec.batch_size == row.batch


@pytest.mark.parametrize("row", GPU_ROWS, ids=lambda row: row.name)
def test_on_a_gpu_our_recipe_is_compiled_in_bf16(row: Row) -> None:
    spec = spec_of(row, argparse.Namespace(recipe=True, batch=row.batch, device=torch.device("cuda")))
    assert (spec.precision, spec.compile) == ("bf16", True)


def test_the_table_of_a_gpu_tells_ratio_mfu_and_memory(tmp_path: Path) -> None:
    rounds = [
        {"default": ran(100, 5, cuda_peak_mib=900.0), "recipe": ran(700, 5, cuda_peak_mib=300.0, mfu=0.5),
         "tuned": ran(400, 5, cuda_peak_mib=500.0)}
    ]  # fmt: skip
    sides: dict[str, list[str]] = {"default": [], "recipe": [], "tuned": []}
    row = {"row": "mlm-base-gpu", "title": "MLM", "goals": [6.0, 2.0], "note": "", **summary(rounds, sides)}
    text = write(tmp_path, row, "some GPU", gpu=True).read_text()
    assert "| MLM | as it comes | **7.00** (7.00 to 7.00) | 6 | yes | 50 % | 300 of 900 MiB | 1 |" in text
    assert "| MLM | tuned | **1.75** (1.75 to 1.75) | 2 | no | 50 % |" in text


def test_both_sides_get_the_same_batch_steps_and_threads(tmp_path: Path) -> None:
    options = argparse.Namespace(threads=1, python="python", peers=tmp_path)
    for row in ROWS + GPU_ROWS:
        for command in sides_of(row, tmp_path, tmp_path, options).values():
            given = [command[command.index(f"--{name}") + 1] for name in ("threads", "batch", "steps", "warmup")]
            assert given == ["1", str(row.batch), str(row.steps), str(row.warmup)]
