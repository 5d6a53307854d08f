"""The demo's splits are honest: fixed, disjoint, balanced."""

from __future__ import annotations

import csv
import zipfile
from collections import Counter
from pathlib import Path

from examples import datasets


def test_digits_splits_are_disjoint_and_balanced() -> None:
    split = datasets.digits(labels_per_class=5)
    assert Counter(label for _, label in split.train) == {str(digit): 5 for digit in range(10)}
    assert Counter(label for _, label in split.test) == {str(digit): 50 for digit in range(10)}
    assert len(split.pool) == 1797 - 500
    assert {picture for picture, _ in split.train} <= set(split.pool)


def test_the_split_is_the_same_every_time() -> None:
    rows = [(f"text {n}", str(n % 3)) for n in range(300)]
    assert datasets.split(rows, 5, 20) == datasets.split(rows, 5, 20)


def test_no_test_item_is_in_the_pool() -> None:
    split = datasets.split([(f"text {n}", str(n % 3)) for n in range(300)], 5, 20)
    assert not {text for text, _ in split.test} & set(split.pool)


def test_docstrings_are_real_and_labelled_by_their_package() -> None:
    split = datasets.docstrings(labels_per_class=2, packages=2, per_package=60, test_per_class=10)
    assert len(split.train) == 4 and len(split.test) == 20 and len(split.pool) == 100
    assert all(len(text) >= 60 for text in split.pool)


def test_written_files_hold_what_was_given(tmp_path: Path) -> None:
    rows = [('a "quoted"\ntext', "x"), ("plain", "y")]
    with datasets.write_labelled_texts(tmp_path / "few.csv", rows).open(newline="") as file:
        assert [(row["text"], row["label"]) for row in csv.DictReader(file)] == rows
    with zipfile.ZipFile(datasets.write_labelled_pictures(tmp_path / "few.zip", [(b"1", "x"), (b"2", "y")])) as archive:
        assert archive.namelist() == ["x/000000.png", "y/000001.png"]
