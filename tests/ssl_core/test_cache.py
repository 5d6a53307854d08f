"""Prepared shards are made once, whole, by one run at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ssl_core.context import MemoryContext, Stopped
from ssl_core.data.cache import cache_key, prepared
from ssl_core.modalities.text import TextModality
from tests.ssl_core import datasets


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return datasets.text_dataset(tmp_path / "data")


def test_the_key_follows_data_settings_and_tokenizer(data: Path, tmp_path: Path) -> None:
    other = datasets.text_dataset(tmp_path / "other", seed=1)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    keys = {
        cache_key(datasets.TEXT, data, None),
        cache_key(datasets.TEXT, other, None),
        cache_key(TextModality(max_length=32, span_max=32), data, None),
        cache_key(datasets.TEXT, data, tokenizer),
    }
    assert len(keys) == 4 and cache_key(datasets.TEXT, data, None) in keys


def test_two_runs_at_once_prepare_once(data: Path, tmp_path: Path) -> None:
    contexts = [MemoryContext(tmp_path), MemoryContext(tmp_path)]
    arguments = [(datasets.TEXT, data, tmp_path / "cache", None, context) for context in contexts]
    threads = [threading.Thread(target=prepared, args=each) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [bool(context.events) for context in contexts]
    assert sorted(told) == [False, True]


def test_a_half_made_folder_is_thrown_away(data: Path, tmp_path: Path) -> None:
    key = cache_key(datasets.TEXT, data, None)
    for leftover in (tmp_path / "cache" / key, tmp_path / "cache" / f"{key}.tmp"):
        leftover.mkdir(parents=True)
        (leftover / "tokens.bin").write_bytes(b"half")
    folder = prepared(datasets.TEXT, data, tmp_path / "cache", None, MemoryContext(tmp_path))
    assert datasets.TEXT.open(folder).count("document") == 90


def test_a_stop_while_preparing_leaves_and_keeps_nothing(data: Path, tmp_path: Path) -> None:
    context = MemoryContext(tmp_path)
    context.stop = "cancel"
    with pytest.raises(Stopped):
        prepared(datasets.TEXT, data, tmp_path / "cache", None, context)
    assert not list((tmp_path / "cache").glob("*/ready"))
