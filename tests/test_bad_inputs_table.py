"""docs/bad-inputs.md and the tests agree."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "bad-inputs.md").read_text(encoding="utf-8")
ROWS = [row for row in TABLE.splitlines() if row.startswith("| B")]


def test_every_test_that_the_table_names_exists() -> None:
    found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE)
    assert len(found) > 90
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file, _ in found}
    assert not [f"{file}::{test}" for file, test in found if f"def {test}(" not in texts[file]]


def test_every_row_says_what_is_answered_and_which_test_shows_it() -> None:
    assert len(ROWS) > 45
    for row in ROWS:
        number, what, answer, tests = (cell.strip() for cell in row.strip("|").split(" | "))
        assert what and answer, number
        assert "::test_" in tests, number


def test_no_row_is_told_twice() -> None:
    numbers = [int(number) for row in ROWS for number in re.findall(r"B(\d+)", row.split(" | ")[0])]
    assert len(numbers) == len(set(numbers))
