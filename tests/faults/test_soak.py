"""F40: the soak's schedule is the seed's, so that a failing seed replays; a short soak holds all invariants."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.faults.soak import run, schedule
from tests.faults.strikes import of


def test_f40_a_seed_draws_the_same_faults_again_and_another_one_others() -> None:
    first, again, other = (list(islice(schedule(seed, "postgresql"), 100)) for seed in (7, 7, 8))
    assert first == again != other
    assert len({each.name for each in first}) == len(of("postgresql"))


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_f40_random_faults_for_a_minute_break_no_invariant(tmp_path: Path, database: str) -> None:
    run(1, 60, database, tmp_path)
