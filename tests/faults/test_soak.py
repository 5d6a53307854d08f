"""F40: the soak's schedule is the seed's, so that a failing seed replays; a short soak holds all invariants."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import run, schedule


def test_f40_a_seed_draws_the_same_faults_again_and_another_one_others() -> None:
    first = schedule(7, 600, "postgresql")
    assert first == schedule(7, 600, "postgresql") != schedule(8, 600, "postgresql")
    assert len({each.name for each in first}) > 10


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_f40_random_faults_for_a_minute_break_no_invariant(tmp_path: Path, database: str) -> None:
    run(1, 60, database, tmp_path)
