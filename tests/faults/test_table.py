"""docs/faults.md and the tests agree."""

from __future__ import annotations

import re

from tests.faults.table import ROOT, named


def test_every_test_that_the_table_names_exists() -> None:
    found = named()
    assert len(found) > 50
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file, _ in found}
    known = {file: re.findall(r"^(?:def |)(\w+)(?:\(| = )", text, re.MULTILINE) for file, text in texts.items()}
    assert not [f"{file}::{test}" for file, test in found if test not in known[file]]


def test_every_fault_test_of_this_folder_is_in_the_table() -> None:
    listed = {test for _, test in named()}
    files = (ROOT / "tests" / "faults").glob("test_*.py")
    written = {test for file in files for test in re.findall(r"^def (test_f\d\w+)\(", file.read_text(), re.MULTILINE)}
    assert not written - listed


def test_every_fault_has_a_row() -> None:
    rows = re.findall(r"^\| F(\d+) \|", (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    never_used = {5, 13, 22, 26, 32, 33, 36}
    assert [int(row) for row in rows] == [n for n in range(1, 42) if n not in never_used]
