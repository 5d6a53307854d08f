"""Flat arrays on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_core.data import shards
from ssl_core.errors import DataError


def test_what_is_appended_is_mapped_back(tmp_path: Path) -> None:
    with shards.ArrayWriter(tmp_path / "a.bin", "uint16") as writer:
        writer.append(np.array([1, 2, 3]))
        writer.append(np.array([[4], [65535]]))
        assert writer.count == 5
    assert shards.map_array(tmp_path / "a.bin", "uint16", (5,)).tolist() == [1, 2, 3, 4, 65535]


def test_an_empty_array_can_be_mapped(tmp_path: Path) -> None:
    with shards.ArrayWriter(tmp_path / "a.bin", "int64"):
        pass
    assert shards.map_array(tmp_path / "a.bin", "int64", (0, 7)).shape == (0, 7)


@pytest.mark.parametrize("size", [None, 9, 11])
def test_a_file_of_the_wrong_size_is_named(tmp_path: Path, size: int | None) -> None:
    if size is not None:
        (tmp_path / "a.bin").write_bytes(b"x" * size)
    with pytest.raises(DataError, match=r"a\.bin") as caught:
        shards.map_array(tmp_path / "a.bin", "uint8", (10,))
    assert caught.value.code == "invalid_shards"


def test_a_mapped_array_cannot_be_written(tmp_path: Path) -> None:
    with shards.ArrayWriter(tmp_path / "a.bin", "uint8") as writer:
        writer.append(np.arange(3))
    with pytest.raises(ValueError, match="read-only"):
        shards.map_array(tmp_path / "a.bin", "uint8", (3,))[0] = 9


@pytest.mark.parametrize("text", [None, "{", '{"format": 0}', '{"documents": 3}'])
def test_a_folder_of_another_format_must_be_prepared_again(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "meta.json").write_text(text)
    with pytest.raises(DataError) as caught:
        shards.read_meta(tmp_path)
    assert caught.value.code == "invalid_shards"


def test_labels_are_none_where_no_row_has_one(tmp_path: Path) -> None:
    shards.write_labels(tmp_path, [[-1, -1], [-1]])
    assert shards.map_labels(tmp_path, 3) is None
    shards.write_labels(tmp_path, [[-1, 4], [0]])
    labels = shards.map_labels(tmp_path, 3)
    assert labels is not None and labels.tolist() == [-1, 4, 0]
