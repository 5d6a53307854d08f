"""What is odd about labelled rows is told and nothing is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from ssl_core.context import MemoryContext
from ssl_core.leakage.quality import look
from ssl_core.spec import FinetuneSpec, RunOrder
from ssl_core.tasks.classification import Classification
from ssl_core.tasks.tagging import Tagging
from tests.ssl_core import datasets
from tests.ssl_core.leakage.test_gate import other_text, pictures, texts


def written(folder: Path, rows: list[str], labels: list[str | None]) -> Path:
    columns: dict[str, Any] = {
        "text": rows, "label": pa.array(labels, pa.string()), "source": [f"toy.csv:{at}" for at in range(len(rows))],
    }  # fmt: skip
    return datasets.write_dataset(folder, columns, {"modality": "text", "characters": 1})


def looked(tmp_path: Path, data: Path, task: Any = None, told: bool = True) -> tuple[dict[str, float], dict[str, str]]:
    spec = FinetuneSpec(dataset="ds_toy", task=Classification())
    order = RunOrder(spec=spec, datasets={"ds_toy": str(data)}, cache=str(tmp_path / "cache"))
    context = MemoryContext(tmp_path / "run")
    numbers = look(order, "ds_toy", task or Classification(), context, told)
    warnings = [event for event in context.events if event["type"] == "message"]
    assert all(event["level"] == "warning" for event in warnings)
    return numbers, {event["code"]: event["message"] for event in warnings}


def test_ordinary_rows_are_not_warned_of(tmp_path: Path) -> None:
    data = written(tmp_path / "data", texts(30, 0), ["a", "b", "c"] * 10)
    assert looked(tmp_path, data) == ({"data/flat_rows": 0.0, "data/twins": 0.0, "data/imbalance": 1.0}, {})


def test_twins_of_two_labels_are_named_on_both_sides(tmp_path: Path) -> None:
    rows = texts(40, 0)
    rows[21], rows[30], rows[31], rows[35] = rows[4], other_text(rows[7]), other_text(rows[8]), rows[9]
    labels: list[str | None] = ["a", "b"] * 20
    labels[31], labels[35] = labels[8], None  # alike and labelled alike, and one of which nothing is known
    numbers, told = looked(tmp_path, written(tmp_path / "data", rows, labels))
    assert numbers["data/twins"] == 2
    assert told["mislabelled_twins"] == (
        "2 pairs of rows are alike and have two labels: row 4 (toy.csv:4, 'a') and row 21 (toy.csv:21, 'b'); "
        "row 7 (toy.csv:7, 'b') and row 30 (toy.csv:30, 'a')"
    )


def test_a_twin_is_found_behind_another_one_of_the_same_label(tmp_path: Path) -> None:
    rows = texts(20, 0)
    rows[10] = rows[11] = rows[12] = rows[2]
    labels: list[str | None] = ["a"] * 12 + ["b"] * 8
    assert looked(tmp_path, written(tmp_path / "data", rows, labels))[0]["data/twins"] == 2


def test_rows_with_nothing_in_them_are_named(tmp_path: Path) -> None:
    rows = texts(40, 0)
    for at in (3, 17):
        rows[at] = "  ...  "
    numbers, told = looked(tmp_path, written(tmp_path / "data", rows, ["a", "b"] * 20))
    assert numbers["data/flat_rows"] == 2 and numbers["data/twins"] == 0
    assert "row 3 (toy.csv:3), row 17 (toy.csv:17)" in told["flat_rows"]


def test_pictures_of_one_colour_are_named(tmp_path: Path) -> None:
    import numpy as np

    images = [*pictures(5, 0), datasets.png(np.full((48, 48, 3), 200, dtype=np.uint8))]
    sizes = pa.array([48] * 6, pa.int32())
    columns: dict[str, Any] = {
        "image": images, "width": sizes, "height": sizes, "channels": pa.array([3] * 6, pa.int32()),
        "label": pa.array(["a", "b"] * 3, pa.string()), "source": [f"x.zip:{at}" for at in range(6)],
    }  # fmt: skip
    data = datasets.write_dataset(tmp_path / "data", columns, {"modality": "image", "width": 48, "height": 48})
    assert "row 5 (x.zip:5)" in looked(tmp_path, data)[1]["flat_rows"]


def test_classes_of_very_different_size_are_told_with_their_rows(tmp_path: Path) -> None:
    data = written(tmp_path / "data", texts(44, 0), [*["often"] * 40, *["rare"] * 4])
    numbers, told = looked(tmp_path, data)
    assert numbers["data/imbalance"] == 10
    assert "class 'often' has 40 rows and class 'rare' 4" in told["class_imbalance"]
    close = written(tmp_path / "close", texts(43, 0), [*["often"] * 39, *["rare"] * 4])
    assert looked(tmp_path, close)[1] == {}


def test_other_targets_are_counted_by_their_own_classes_and_have_no_twins(tmp_path: Path) -> None:
    numbers, _ = looked(tmp_path, datasets.text_dataset(tmp_path / "data"), Tagging())
    assert set(numbers) == {"data/flat_rows", "data/imbalance"} and numbers["data/imbalance"] > 1


def test_what_was_told_before_is_not_told_again_and_found_in_the_cache(tmp_path: Path) -> None:
    data = written(tmp_path / "data", ["  ...  ", *texts(20, 0)], ["a", *["b"] * 20])
    numbers, told = looked(tmp_path, data)
    assert set(told) == {"flat_rows", "class_imbalance"}
    assert looked(tmp_path, data, told=False) == (numbers, {})
