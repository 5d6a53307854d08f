"""What every modality promises, whichever it is: a new one is tested here the moment it lands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_core.batch import Inputs, Pairs, Tokens
from ssl_core.data import rows
from ssl_core.errors import DataError
from ssl_core.modalities import MODALITIES, Modality
from ssl_core.modalities.base import Source
from tests.ssl_core.toys import TOYS

VIEWS = [(name, view) for name, modality in MODALITIES.items() for view in modality.views]
every_view = pytest.mark.parametrize(("name", "view"), VIEWS)
every_modality = pytest.mark.parametrize("name", MODALITIES)


def opened(name: str, tmp_path: Path) -> tuple[Modality, Source, Path, Path]:
    modality, make = TOYS[name].modality, TOYS[name].write
    dataset, out = make(tmp_path / "dataset"), tmp_path / "shards"
    modality.prepare(dataset, out, None, lambda done, total: None)
    return modality, modality.open(out), dataset, out


def raw_of(source: Source, view: str, modality: Modality, indices: list[int]) -> Mapping[str, Tensor]:
    read = source.read(modality.views[view], np.array(indices))
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in read.items()}


def tensors(inputs: Inputs) -> list[Tensor]:
    if isinstance(inputs, Pairs):
        return [part for side in (inputs.image, inputs.text) if side is not None for part in tensors(side)]
    if isinstance(inputs, Tokens):
        assert inputs.word_starts is not None
        return [inputs.ids, inputs.segments, inputs.positions, inputs.word_starts]
    return [inputs]


def same(one: Inputs, other: Inputs) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-5) for a, b in pairs)


@every_modality
def test_every_modality_has_a_toy_and_a_plain_view(name: str) -> None:
    assert name in TOYS
    assert "plain" in MODALITIES[name].views


@every_view
def test_a_view_is_a_function_of_seeds_and_index(tmp_path: Path, name: str, view: str) -> None:
    modality, source, _, _ = opened(name, tmp_path)
    raw, seeds = raw_of(source, view, modality, [0, 1, 2, 3]), torch.tensor([5, 6, 7, 8])
    assert same(modality.view(view, raw, seeds, 1), modality.view(view, raw, seeds, 1))


@every_view
def test_a_sample_looks_the_same_whatever_else_is_in_its_batch(tmp_path: Path, name: str, view: str) -> None:
    modality, source, _, _ = opened(name, tmp_path)
    indices, seeds = [4, 2, 7, 1], torch.tensor([5, 6, 7, 8])
    whole = modality.view(view, raw_of(source, view, modality, indices), seeds)
    for row in range(4):
        alone = modality.view(view, raw_of(source, view, modality, indices[row : row + 1]), seeds[row : row + 1])
        for ours, theirs in zip(tensors(alone), tensors(whole), strict=True):
            # A text's padding is up to the longest of its batch.
            part = theirs[row, : ours.shape[1]]
            torch.testing.assert_close(ours[0].double(), part.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("text", "span"),
        ("protein", "span"),
        ("image_text", "pair"),
        *(("image", view) for view in ("light", "crop", "global", "local")),
    ],
)
def test_a_random_view_changes_with_the_seed_and_with_the_index(tmp_path: Path, name: str, view: str) -> None:
    modality, source, _, _ = opened(name, tmp_path)
    raw = raw_of(source, view, modality, list(range(16)))
    seeds = torch.arange(16)
    first = modality.view(view, raw, seeds, 0)
    assert not same(first, modality.view(view, raw, seeds, 1))
    assert not same(first, modality.view(view, raw, seeds + 100, 0))


@every_modality
def test_the_plain_view_ignores_the_seeds(tmp_path: Path, name: str) -> None:
    modality, source, _, _ = opened(name, tmp_path)
    raw = raw_of(source, "plain", modality, [0, 1, 2])
    assert same(modality.view("plain", raw, torch.arange(3)), modality.view("plain", raw, torch.arange(3) + 9, 1))


@every_modality
def test_an_unknown_view_is_a_key_error(tmp_path: Path, name: str) -> None:
    modality, source, _, _ = opened(name, tmp_path)
    with pytest.raises(KeyError, match="sideways"):
        modality.view("sideways", raw_of(source, "plain", modality, [0]), torch.zeros(1, dtype=torch.int64))


@every_modality
def test_what_is_served_equals_what_was_trained_on(tmp_path: Path, name: str) -> None:
    modality, source, dataset, out = opened(name, tmp_path)
    content = TOYS[name].items(dataset, 6)
    served = modality.view("plain", modality.collate(content, out), torch.zeros(6, dtype=torch.int64))
    trained = modality.view(
        "plain", raw_of(source, "plain", modality, list(range(6))), torch.zeros(6, dtype=torch.int64)
    )
    assert same(served, trained)


@every_modality
def test_labels_and_classes_follow_the_rows(tmp_path: Path, name: str) -> None:
    _, source, dataset, _ = opened(name, tmp_path)
    labels = [label for batch in rows.batches(dataset, ["label"]) for label in batch["label"]]
    assert source.labels is not None
    assert [source.classes[index] for index in source.labels] == labels


@every_modality
def test_a_dataset_without_labels_has_none(tmp_path: Path, name: str) -> None:
    modality, make = TOYS[name].modality, TOYS[name].write
    modality.prepare(make(tmp_path / "d", labelled=False), tmp_path / "s", None, lambda done, total: None)
    assert modality.open(tmp_path / "s").labels is None


@every_modality
def test_preparation_reports_progress_to_the_end(tmp_path: Path, name: str) -> None:
    modality, make = TOYS[name].modality, TOYS[name].write
    dataset = make(tmp_path / "d")
    told: list[tuple[int, int]] = []
    modality.prepare(dataset, tmp_path / "s", None, lambda done, total: told.append((done, total)))
    total = rows.profile(dataset)["rows"]
    assert told[-1] == (total, total)


@every_modality
def test_preparing_twice_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    modality, make = TOYS[name].modality, TOYS[name].write
    dataset = make(tmp_path / "d")
    for out in ("one", "two"):
        modality.prepare(dataset, tmp_path / out, None, lambda done, total: None)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()
    )
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@every_modality
def test_a_folder_that_is_not_a_dataset_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        TOYS[name].modality.prepare(tmp_path, tmp_path / "s", None, lambda done, total: None)
    assert caught.value.code == "invalid_dataset"


@every_modality
def test_bad_items_are_named_by_number(tmp_path: Path, name: str) -> None:
    modality, _, dataset, out = opened(name, tmp_path)
    good = TOYS[name].items(dataset, 1)[0]
    with pytest.raises(DataError) as caught:
        modality.collate([good, 3.5], out)
    assert (caught.value.code, caught.value.param) == ("invalid_input", "items.1")
