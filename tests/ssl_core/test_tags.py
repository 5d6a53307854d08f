"""Tags of words and residues: from an upload to a batch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from ssl_core.context import MemoryContext
from ssl_core.data.cache import cache_key, prepared
from ssl_core.data.loader import Loader, read_slice
from ssl_core.data.ragged import Ragged, write
from ssl_core.data.restated import Restated
from ssl_core.data.words import first_tokens
from ssl_core.errors import DataError
from ssl_core.modalities.text import TextModality
from ssl_core.targets import TARGETS
from tests.ssl_core import datasets
from tests.ssl_core.uploads import take

MARKED = {"sequence": "MKVLAG", "labels": "CHHHEC", "mask": "111110"}


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_string_and_a_list_of_residues_labels_are_the_same_tags(tmp_path: Path) -> None:
    listed = {**MARKED, "labels": list("CHHHEC"), "mask": [1, True, 1, 1, "1", False]}
    made = take(tmp_path, "a.jsonl", lines(MARKED, listed))
    assert made.errors == []
    assert [row["tags"] for row in made.rows] == [["C", "H", "H", "H", "E", None]] * 2


def test_the_profile_counts_tags_that_are_not_masked_and_the_preview_shows_them(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", lines(MARKED, {"sequence": "MKV"}))
    assert made.summary["targets"] == {
        "tags": {"rows": 1, "classes": ["C", "E", "H"], "class_counts": {"C": 1, "E": 1, "H": 3}}
    }
    assert [row["tags"] for row in made.read("preview.json")] == ["CHHHE.", None]


def test_words_may_come_as_a_list_with_a_tag_each(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", lines({"tokens": ["Ada", "wrote", "it", "."], "ner_tags": ["PER", "O", None, 0]}))
    assert made.summary["modality"] == "text"
    assert [(row["text"], row["tags"]) for row in made.rows] == [("Ada wrote it .", ["PER", "O", None, "0"])]


def test_a_table_has_tags_of_words_between_spaces(tmp_path: Path) -> None:
    made = take(tmp_path, "a.csv", b"text,tags\nAda wrote it,PER O O\nNo tags here,\n")
    assert [row["tags"] for row in made.rows] == [["PER", "O", "O"], None]


def test_parquet_lists_become_tags(tmp_path: Path) -> None:
    out = io.BytesIO()
    parquet.write_table(pa.table({"sequence": ["MKV", "LA"], "labels": [["H", None, "C"], ["E", "E"]]}), out)
    made = take(tmp_path, "a.parquet", out.getvalue())
    assert [row["tags"] for row in made.rows] == [["H", None, "C"], ["E", "E"]]


def test_columns_say_where_the_tags_are(tmp_path: Path) -> None:
    row = {"sequence": "MKV", "ss3": "HHC", "labels": "xyz", "known": "101"}
    made = take(tmp_path, "a.jsonl", lines(row), columns={"tags": "ss3", "mask": "known"})
    assert made.rows[0]["tags"] == ["H", None, "C"]


def test_a_first_row_without_tags_does_not_hide_those_of_the_next(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", lines({"sequence": "MKV"}, {"sequence": "LA", "labels": "HC"}))
    assert [row["tags"] for row in made.rows] == [None, ["H", "C"]]


BAD = {
    "a tag short": ({**MARKED, "labels": "CHHHE"}, "tags_mismatch", "5 tags for 6 residues"),
    "a mask too long": ({**MARKED, "mask": "1111111"}, "tags_mismatch", "a mask of 7 for 6 residues"),
    "a mask of letters": ({**MARKED, "mask": "11x111"}, "invalid_tags", "mask entry 3 is 'x'"),
    "a number": ({**MARKED, "labels": 3}, "invalid_tags", "not a int"),
    "a list in a list": ({**MARKED, "labels": ["C", ["H"], "H", "H", "E", "C"]}, "invalid_tags", "tag 2 is a list"),
    "an empty tag": ({**MARKED, "labels": ["C", "", "H", "H", "E", "C"]}, "invalid_tags", "tag 2 must have 1 to"),
    "half a letter": ({**MARKED, "labels": ["C", "\ud800", "H", "H", "E", "C"]}, "encoding_error", "tag 2"),
    "a gap": ({**MARKED, "sequence": "MK-VLA"}, "tags_mismatch", "6 tags for 5 residues"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_tags_make_their_row_bad_and_no_other(tmp_path: Path, name: str) -> None:
    row, code, words = BAD[name]
    made = take(tmp_path, "a.jsonl", lines(MARKED, row, MARKED))
    assert made.errors == [("a.jsonl", 2, code)]
    assert words in (made.folder / "errors.jsonl").read_text()
    assert made.summary["rows"] == 2


def test_words_that_are_none_are_named(tmp_path: Path) -> None:
    good = {"tokens": ["a", "b"], "tags": ["X", "Y"]}
    rows = [good, {**good, "tokens": ["a", "b c"]}, {**good, "tokens": ["a", ""]}, {**good, "tokens": [1, "b"]}, good]
    made = take(tmp_path, "a.jsonl", lines(*rows, good, good))
    assert made.errors == [("a.jsonl", row, "wrong_type") for row in (2, 3, 4)]


def test_tags_of_pictures_are_refused_at_once(tmp_path: Path) -> None:
    out = io.BytesIO()
    parquet.write_table(pa.table({"image": [b"x"], "tags": ["a"]}), out)
    with pytest.raises(DataError) as caught:
        take(tmp_path, "a.parquet", out.getvalue(), modality="image", columns={"tags": "tags"})
    assert (caught.value.code, caught.value.param) == ("unsupported_target", "columns.tags")


def test_a_dataset_without_targets_has_no_trace_of_them(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", lines({"sequence": "MKV", "label": "x"}))
    assert "targets" not in made.summary
    assert list(made.rows[0]) == ["protein", "label", "source"]
    shards = prepared(datasets.PROTEIN, made.folder, tmp_path / "cache", None, MemoryContext(tmp_path))
    assert shards.name == cache_key(datasets.PROTEIN, made.folder, None)
    assert not TARGETS["tags"].is_in(shards)


def opened(folder: Path, modality: Any, classes: list[str] | None = None) -> Restated:
    shards = prepared(modality, folder, folder / "cache", None, MemoryContext(folder))
    source = modality.open(shards)
    targets = TARGETS["tags"].open(shards, classes)
    return Restated(source, source.facts, targets.classes, targets)


def test_a_batch_has_the_tag_of_every_residue(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", lines(MARKED, {"sequence": "MKV"}, {"sequence": "LAGMKVLA", "labels": "HHHHEEEE"}))
    source = opened(made.folder, datasets.PROTEIN)
    assert source.classes == ["C", "E", "H"]
    assert source.groups().tolist() == [0, -1, 0]
    loader = Loader(source, datasets.PROTEIN, ("plain",), indices=np.arange(3), batch_size=3, seed=0)
    part = read_slice(source, "document", np.array([2, 0, 1]), None)
    tags = loader.batch(part, torch.device("cpu")).targets["tags"].tolist()
    assert tags == [[2, 2, 2, 2, 1, 1, 1, 1], [0, 2, 2, 2, 1, -1, -1, -1], [-1] * 8]


def test_tags_count_in_a_models_classes(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", lines(MARKED, MARKED))
    source = opened(made.folder, datasets.PROTEIN, ["H", "T", "C"])
    assert source.truth(np.array([1]))["tags"].tolist() == [[2, 0, 0, 0, -1, -1]]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "bytes", "characters"])
@pytest.mark.parametrize("framed", [False, True])
def test_a_word_is_tagged_at_the_first_token_of_it(tmp_path: Path, kind: str, framed: bool) -> None:
    settings = datasets.TEXT.model_copy(update={"tokenizer": kind, "special_tokens": framed})
    assert isinstance(settings, TextModality)
    words = ["Straße", "isn't", "(x)", "naïve", "数学", "bread"]
    text = " \t".join(words) + " "
    made = take(tmp_path, "a.jsonl", lines({"text": text, "tags": [f"t{n}" for n in range(6)]}))
    source = opened(made.folder, settings)
    (tags,) = source.truth(np.array([0]))["tags"].tolist()
    (ids,) = source.read("document", np.array([0]))["ids"].tolist()
    shards = prepared(settings, made.folder, made.folder / "cache", None, MemoryContext(made.folder))
    (at,) = first_tokens([text], shards / "tokenizer.json", framed)
    assert [tag for tag in tags if tag >= 0] == list(range(6))
    assert [tags[place] for place in at] == list(range(6))
    assert len(at) == 6 and max(at) < len(ids)


def test_rows_of_different_length_come_back_filled_up(tmp_path: Path) -> None:
    rows = [np.array([[1.5, 2], [3, 4]]), np.zeros((0, 2)), np.array([[5, 6]])]
    write(tmp_path, "boxes", "float32", rows)
    made = Ragged(tmp_path, "boxes", "float32", 2)
    assert made.lengths().tolist() == [2, 0, 1]
    read = made.read(np.array([2, 0, 1]), float("nan"))
    assert read.shape == (3, 2, 2)
    assert read[1].tolist() == [[1.5, 2], [3, 4]]
    assert np.isnan(read[0, 1]).all() and np.isnan(read[2]).all()
