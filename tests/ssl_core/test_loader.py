"""Batches are a pure function of (seed, step)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ssl_core.context import MemoryContext
from ssl_core.data.cache import prepared
from ssl_core.data.loader import Loader, make_batch, read_slice
from tests.ssl_core import datasets


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("loader")
    return prepared(datasets.TEXT, datasets.text_dataset(root / "data"), root / "cache", None, MemoryContext(root))


def text_loader(
    shards: Path, view: str = "span", seed: int = 1, batch_size: int = 8, count: int | None = None
) -> Loader:
    source = datasets.TEXT.open(shards)
    indices = np.arange(count or source.count(datasets.TEXT.views[view]))
    return Loader(source, datasets.TEXT, (view, view), indices=indices, batch_size=batch_size, seed=seed)


def test_a_step_is_the_same_whatever_was_read_before(shards: Path) -> None:
    fresh, used = text_loader(shards), text_loader(shards)
    for step in (0, 30, 3):
        used.read(step)
    for name, tensor in fresh.read(17).raw.items():
        assert torch.equal(tensor, used.read(17).raw[name])
    assert torch.equal(fresh.read(17).seeds, used.read(17).seeds)


def test_an_epoch_shows_every_sample_once(shards: Path) -> None:
    loader = text_loader(shards, batch_size=9)
    for epoch in (0, 1):
        steps = range(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch)
        seen = np.concatenate([loader.samples(step) for step in steps])
        assert sorted(seen.tolist()) == list(range(90))


def test_epochs_and_seeds_have_their_own_order(shards: Path) -> None:
    loader = text_loader(shards)
    first = loader.samples(0).tolist()
    assert first != loader.samples(loader.steps_per_epoch).tolist()
    assert first != text_loader(shards, seed=2).samples(0).tolist()


def test_a_sample_gets_other_seeds_in_every_epoch(shards: Path) -> None:
    loader = text_loader(shards, batch_size=90)
    seeds = [loader.read(step).seeds[np.argsort(loader.samples(step))] for step in (0, 1)]
    assert not torch.equal(seeds[0], seeds[1])


def test_documents_of_like_length_share_a_batch(shards: Path) -> None:
    loader = text_loader(shards, batch_size=10)
    lengths = loader.source.lengths()
    spreads = [np.ptp(lengths[loader.samples(step)]) for step in range(loader.steps_per_epoch)]
    assert np.mean(spreads) < 0.5 * np.ptp(lengths)


def test_a_batch_larger_than_the_data_is_the_whole_of_it(shards: Path) -> None:
    loader = text_loader(shards, batch_size=64, count=5)
    assert loader.batch_size == 5
    assert sorted(loader.samples(3).tolist()) == [0, 1, 2, 3, 4]


def test_reading_ahead_gives_the_same_batches(shards: Path) -> None:
    loader = text_loader(shards)
    ahead = loader.ahead(4)
    for step in range(4, 12):
        part = next(ahead)
        assert torch.equal(part.seeds, loader.read(step).seeds)
        assert torch.equal(part.raw["ids"], loader.read(step).raw["ids"])
    ahead.close()
    assert not ahead._thread.is_alive()


def test_an_error_of_the_reading_thread_reaches_the_trainer(shards: Path) -> None:
    loader = text_loader(shards)
    loader.indices = np.array([10**6] * 16)
    with pytest.raises(IndexError):
        next(loader.ahead(0))


def test_two_views_of_a_sample_differ(shards: Path) -> None:
    batch = text_loader(shards).batch(text_loader(shards).read(0), torch.device("cpu"))
    first, second = batch.views
    assert first.ids.tolist() != second.ids.tolist()  # type: ignore[union-attr]


def test_labels_come_with_documents_and_not_with_packed_rows(shards: Path) -> None:
    source = datasets.TEXT.open(shards)
    part = read_slice(source, "document", np.array([4, 0]), None)
    assert part.labels is not None and source.labels is not None
    assert part.labels.tolist() == [int(source.labels[4]), int(source.labels[0])]
    assert read_slice(source, "row", np.array([1, 0]), None).labels is None
    assert make_batch(datasets.TEXT, ("plain",), part, torch.device("cpu")).labels is not None


def test_a_step_reports_the_tokens_of_all_its_views(shards: Path) -> None:
    assert text_loader(shards, view="packed", batch_size=4).tokens_per_step() == 2 * 4 * datasets.TEXT.max_length


def test_a_plain_view_begins_at_the_beginning_also_in_training(tmp_path: Path) -> None:
    words = [f"{chr(0x4E00 + n)}" for n in range(8 * 24 + 200)]
    columns = {"text": [" ".join(words)] * 4, "label": pa.array(["a", "b"] * 2), "source": ["toy.csv"] * 4}
    characters = 4 * 2 * len(words)
    profile = {"modality": "text", "characters": characters, "width": 0, "height": 0, "channels": 0}
    modality = datasets.TEXT.model_copy(update={"tokenizer": "wordpiece", "vocab_size": 900})
    data = datasets.write_dataset(tmp_path / "long", columns, profile)
    source = modality.open(prepared(modality, data, tmp_path / "cache", None, MemoryContext(tmp_path)))
    starts: dict[str, set[int]] = {}
    for view in ("plain", "span"):
        loader = Loader(source, modality, (view,), indices=np.arange(4), batch_size=4, seed=1)
        starts[view] = {int(first) for step in range(3) for first in loader.read(step).raw["ids"][:, 0]}
    assert starts["plain"] == {int(source.read("document", np.arange(1))["ids"][0, 0])}
    assert len(starts["span"]) > 3
