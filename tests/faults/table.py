"""The tests that docs/faults.md names, beside those of this folder: `python -m tests.faults.table` prints them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def named() -> list[tuple[str, str]]:
    """(file, test) of every test in the table."""
    return _NAMED.findall((ROOT / "docs" / "faults.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    print("\n".join(sorted({f"{file}::{test}" for file, test in named() if not file.startswith("tests/faults/")})))
