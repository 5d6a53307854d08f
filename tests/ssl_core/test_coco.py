"""Archives of pictures with COCO's list of their objects: what is taken, and what is told of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_core.context import MemoryContext
from ssl_core.data.cache import prepared
from ssl_core.errors import DataError
from ssl_core.modalities.image import ImageModality
from ssl_core.targets.boxes import Boxes
from tests.ssl_core.uploads import Ingested, picture, take, zipped

SIZE = (40, 20)


def listed(annotations: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A list of two pictures and two categories, its annotations numbered."""
    numbered = [{"id": at, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], **each}
                for at, each in enumerate(annotations, 100)]  # fmt: skip
    return {
        "images": [{"id": at, "file_name": f"{at}.png", "width": 40, "height": 20} for at in (1, 2)],
        "categories": [{"id": 7, "name": "owl"}, {"id": 9, "name": "cat"}], "annotations": numbered, **changes,
    }  # fmt: skip


def archive(tmp_path: Path, told: Any, name: str = "annotations.json", folder: str = "images/") -> Ingested:
    """Three pictures, the third of which the list does not name."""
    files = {f"{folder}{at}.png": picture(at, size=SIZE) for at in (1, 2, 3)}
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    return take(tmp_path, "cells.zip", zipped({name: data, **files}))


def test_objects_come_with_their_pictures(tmp_path: Path) -> None:
    found = archive(tmp_path, listed([{}, {"category_id": 9, "bbox": [0.5, 0, 10, 20]}]))
    first, second, third = [row["boxes"] for row in found.rows]
    assert first == [
        {"label": "owl", "x": 1, "y": 2, "width": 3, "height": 4},
        {"label": "cat", "x": 0.5, "y": 0, "width": 10, "height": 20},
    ]
    assert second == [], "the list names it without objects: there are none"
    assert third is None, "the list does not name it: nobody knows"
    facts = found.summary["targets"]["boxes"]
    assert (facts["rows"], facts["classes"], facts["class_counts"]) == (2, ["cat", "owl"], {"cat": 1, "owl": 1})
    assert found.errors == [] and found.summary["classes"] == []
    assert found.read("preview.json")[0]["boxes"][0] == {"label": "owl", "box": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("name", "folder"),
    [("annotations.json", ""), ("train/annotations.json", "train/images/"), ("_annotations.coco.json", "")],
)
def test_the_list_may_stand_beside_or_above_the_pictures(tmp_path: Path, name: str, folder: str) -> None:
    found = archive(tmp_path, listed([{}]), name, folder)
    assert [row["boxes"] is not None for row in found.rows] == [True, True, False]


FAULTS = [
    ({"bbox": [50, 2, 3, 4]}, "lies outside the picture of 40 x 20"),
    ({"bbox": [1, 20, 3, 4]}, "lies outside"),
    ({"bbox": [1, 2, 0, 4]}, "has no area"),
    ({"bbox": [1, 2, 3, -4]}, "has no area"),
    ({"bbox": [1, 2, 3]}, "four finite numbers"),
    ({"bbox": [1, 2, 3, float("nan")]}, "four finite numbers"),
    ({"bbox": [1, 2, True, "4"]}, "four finite numbers"),
    ({"bbox": None}, "four finite numbers"),
    ({"image_id": 77}, "no image has the id 77"),
    ({"category_id": 8}, "no category has the id 8; there are 7, 9"),
    ({"category_id": [7]}, "category_id is a whole number or a text"),
    ({"id": 100}, "its id 100 stands there before"),
]


@pytest.mark.parametrize(("fault", "why"), FAULTS, ids=[why for _, why in FAULTS])
def test_a_box_that_cannot_be_is_named_and_nothing_else_is_lost(
    tmp_path: Path, fault: dict[str, Any], why: str
) -> None:
    found = archive(tmp_path, listed([{}, fault, {"bbox": [5, 5, 5, 5]}]))
    assert len(found.rows) == 3 and len(found.rows[0]["boxes"]) == 2
    (error,) = found.errors
    assert error[:2] == ("annotations.json", 2)
    assert why in (found.folder / "errors.jsonl").read_text()
    assert found.summary["bad_rows"] == 1
    told = [event for event in found.events if event["type"] == "message"]
    assert any("annotations.json:2" in event["message"] for event in told)


def test_many_bad_boxes_do_not_make_bad_pictures(tmp_path: Path) -> None:
    found = archive(tmp_path, listed([{}, *[{"bbox": [0, 0, 0, 0]}] * 50]))
    assert len(found.rows) == 3 and found.summary["bad_rows"] == 50


def test_a_box_that_leaves_the_picture_is_cut_to_it(tmp_path: Path) -> None:
    found = archive(tmp_path, listed([{"bbox": [-5, 15, 20, 20]}]))
    assert found.rows[0]["boxes"] == [{"label": "owl", "x": 0, "y": 15, "width": 15, "height": 5}]
    assert found.errors == []


def test_crowds_are_left_out(tmp_path: Path) -> None:
    found = archive(tmp_path, listed([{"iscrowd": 1}, {}]))
    assert len(found.rows[0]["boxes"]) == 1 and found.errors == []


def test_a_list_of_another_picture_size_and_a_picture_that_is_missing_are_bad_rows(tmp_path: Path) -> None:
    told = listed([{}])
    told["images"][0]["width"] = 30
    told["images"].append({"id": 5, "file_name": "gone.png"})
    found = archive(tmp_path, told)
    assert sorted(found.errors) == [
        ("annotations.json", 3, "missing_file"), ("images/1.png", 1, "invalid_boxes")]  # fmt: skip
    assert len(found.rows) == 2


@pytest.mark.parametrize(
    "told", [b"{", b"\xff", b"[]", b'{"images": []}', json.dumps({**listed([]), "annotations": {}}).encode()]
)
def test_what_is_no_such_list_is_refused_with_its_file(tmp_path: Path, told: bytes) -> None:
    with pytest.raises(DataError) as caught:
        archive(tmp_path, told)
    assert (caught.value.code, caught.value.param) == ("invalid_annotations", "annotations.json")


@pytest.mark.parametrize(
    ("where", "entry"),
    [("images", {"id": 1, "file_name": "9.png"}), ("images", {"id": 9}), ("images", {"id": 9, "file_name": 3}),
     ("categories", {"id": 7, "name": "elk"}), ("categories", {"name": "elk"}), ("images", "9.png")],
)  # fmt: skip
def test_an_entry_without_what_it_needs_is_told_with_its_number(tmp_path: Path, where: str, entry: Any) -> None:
    told = listed([{}])
    told[where].append(entry)
    found = archive(tmp_path, told)
    assert found.errors == [("annotations.json", 3, "invalid_annotations")]
    assert len(found.rows) == 3 and len(found.rows[0]["boxes"]) == 1


def test_two_lists_in_one_archive_are_refused(tmp_path: Path) -> None:
    files = {f"{name}/annotations.json": json.dumps(listed([])).encode() for name in "ab"}
    with pytest.raises(DataError, match="two lists of objects"):
        take(tmp_path, "cells.zip", zipped({**files, "a/1.png": picture(1, size=SIZE)}))


def test_prepared_boxes_are_shares_of_the_whole_picture(tmp_path: Path) -> None:
    whole = {"category_id": 9, "bbox": [0, 0, 40, 20], "image_id": 2}
    found = archive(tmp_path, listed([{"bbox": [10, 5, 20, 10]}, whole, {"image_id": 2}]))
    settings = ImageModality(size=16, fit="stretch")
    folder = prepared(settings, found.folder, tmp_path / "cache", None, MemoryContext(tmp_path / "p"))
    assert Boxes.is_in(folder)
    targets = Boxes.open(folder)
    read = targets.read(np.array([0, 1, 2]))
    assert np.allclose(read["boxes"][0, 0], [0.25, 0.25, 0.75, 0.75]) and np.isnan(read["boxes"][0, 1]).all()
    assert read["kinds"].tolist() == [[1, -1], [0, 1], [-1, -1]]
    assert read["sizes"].tolist() == [[40, 20]] * 3
    assert targets.groups().tolist() == [1, 0, -1], "the rarest class of each, -1 where nothing is known"
    other = Boxes.open(folder, ["owl", "dog"]).read(np.array([1]))
    assert other["kinds"].tolist() == [[-1, 0]] and np.isnan(other["boxes"][0, 0]).all()
    pixels = settings.open(folder).read("document", np.array([0]))["pixels"]
    assert pixels.shape == (1, 3, 16, 16)


def test_columns_of_tables_may_hold_boxes() -> None:
    content = {"image": picture(1, size=SIZE)}
    lists = {"bbox": [[1, 2, 3, 4]], "category": ["owl"]}
    for given in ([{"label": "owl", "box": [1, 2, 3, 4]}], lists, json.dumps(lists)):
        found = Boxes.read({"boxes": given}, content, ImageModality)
        assert found == [{"label": "owl", "x": 1, "y": 2, "width": 3, "height": 4}]
    assert Boxes.read({"boxes": None}, content, ImageModality) is None
    assert Boxes.read({"boxes": []}, content, ImageModality) == []
    nameless = [[{"box": [1, 2, 3, 4]}], [{"label": "", "box": [1, 2, 3, 4]}]]
    for bad in ("[", 3, {"bbox": [[1, 2, 3, 4]], "category": []}, *nameless):
        with pytest.raises(DataError) as caught:
            Boxes.read({"boxes": bad}, content, ImageModality)
        assert caught.value.code == "invalid_boxes"
