"""The character-level comparison: the same schedule, the same measure, and both sides learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpt_char import Plan, compare, nats, rate, split
from ssl_core.optim import rate_factor
from ssl_core.spec import OptimizerSpec

TINY = Plan(steps=40, batch=8, context=16, width=32, depth=1, heads=2, rate=1e-2, warmup=2)


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab" * 50)
    assert split(tmp_path / "a.txt", 100) == ("ab" * 45, "ab" * 5)
    with pytest.raises(SystemExit, match="100 characters; 101"):
        split(tmp_path / "a.txt", 101)


def test_both_sides_follow_the_same_learning_rate() -> None:
    plan = Plan()
    spec = OptimizerSpec(learning_rate=plan.rate, warmup_fraction=plan.warmup / plan.steps)
    steps = range(0, plan.steps, 37)
    assert [rate(step, plan) for step in steps] == pytest.approx(
        [plan.rate * rate_factor(spec, step, plan.steps) for step in steps]
    )


def test_a_character_is_told_from_those_before_it_in_its_block() -> None:
    ids = torch.arange(35) % 7

    def knows(inputs: Tensor) -> Tensor:
        return 100.0 * F.one_hot((inputs + 1) % 7, 7)

    assert nats(lambda inputs: torch.zeros(*inputs.shape, 7), ids, 8) == pytest.approx(math.log(7))
    assert nats(knows, ids, 8) == pytest.approx(0, abs=1e-9)


def test_both_sides_learn_the_same_text(tmp_path: Path) -> None:
    words = ["anchor", "bread", "compost", "deck", "flour", "hedge", "rose"]
    text = " ".join(np.random.default_rng(0).choice(words, 3000))
    found = compare((text[:12_000], text[12_000:14_000]), TINY, [0], threads=1)
    row = found["rows"][0]
    assert found["vocabulary"] == 5 + len(set(text))
    assert max(row["ours"], row["plain"]) < 0.8 * math.log(found["vocabulary"])
    assert abs(row["difference"]) < 0.25 and row["difference"] == row["ours"] - row["plain"]
    assert 150 < len(found["sample"]["continuation"]) <= 200  # special entries show nothing
