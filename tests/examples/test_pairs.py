"""The pure parts of the example with pictures and captions."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from examples.pairs import EXPERIMENTS, baseline, read_pairs, recalls, table_of


def test_recall_counts_partners_among_the_nearest_of_each_direction() -> None:
    # Caption 1 is nearest to both pictures: picture 0 finds its own only as the second.
    pictures = np.array([[1.0, 0.2], [0.0, 1.0]])
    captions = np.array([[1.0, -0.6], [1.0, 1.0]])
    assert recalls(pictures, captions) == {"picture_to_text": [0.5, 1.0, 1.0], "text_to_picture": [0.5, 1.0, 1.0]}


def test_recall_does_not_depend_on_the_lengths_of_vectors() -> None:
    random = np.random.default_rng(0)
    pictures, captions = random.normal(size=(2, 40, 8))
    assert recalls(pictures * random.uniform(1, 9, (40, 1)), captions) == recalls(pictures, captions)


def test_vectors_that_are_all_the_same_find_nothing() -> None:
    same = np.ones((40, 8))
    assert recalls(same, same) == {"picture_to_text": [0.0] * 3, "text_to_picture": [0.0] * 3}


def test_pairs_are_read_in_the_order_of_the_captions(tmp_path: Path) -> None:
    rows = [{"image": f"images/{n}.png", "caption": f"ça {n}"} for n in (2, 0, 1)]
    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        for n in range(3):
            archive.writestr(f"images/{n}.png", bytes([n]))
        archive.writestr("captions.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert read_pairs(tmp_path / "pairs.zip") == [(bytes([n]), f"ça {n}") for n in (2, 0, 1)]


def test_the_baseline_of_a_test_set_is_read_by_direction_and_depth(tmp_path: Path) -> None:
    known = {
        f"unseen_ridge_{side}_R@{k}": value + k / 100
        for side, value in (("i2t", 0.1), ("t2i", 0.2))
        for k in (1, 5, 10)
    }
    (tmp_path / "baselines.json").write_text(json.dumps({"image_text/twemoji": known}))
    read = baseline(tmp_path, EXPERIMENTS["twemoji"], "unseen")
    assert read["picture_to_text"] == pytest.approx([0.11, 0.15, 0.2])
    assert read["text_to_picture"] == pytest.approx([0.21, 0.25, 0.3])


def test_the_table_shows_every_direction_with_the_mean_of_its_seeds() -> None:
    def both(value: float) -> dict[str, list[float]]:
        return {"picture_to_text": [value] * 3, "text_to_picture": [value] * 3}

    row = {"test": "unseen", "pairs": 7, "baseline": both(0.2), "untrained": both(0.1)}
    out = io.StringIO()
    Console(file=out, width=160).print(table_of("t", [{**row, "pretrained": [both(0.3), both(0.5)]}]))
    assert "picture to text" in out.getvalue() and "text to picture" in out.getvalue()
    assert out.getvalue().count("unseen (7)") == 2 and out.getvalue().count("0.400 ± 0.141") == 6
