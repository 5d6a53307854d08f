"""Models on disk and in memory: fetched once, loaded once, bounded, verified."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.model_folders import text_model
from tests.worker.model_door import TOKEN, ModelDoor
from worker.inference_errors import Busy, Refused
from worker.inference_files import ModelFiles, download
from worker.inference_models import ModelCache
from worker.loading import outcome


class Loaded:
    """A model that only knows its size."""

    def __init__(self, size: int) -> None:
        self.size_bytes = size


@pytest.fixture
def door() -> Iterator[ModelDoor]:
    made = ModelDoor()
    yield made
    made.close()


@pytest.fixture
def files(door: ModelDoor, tmp_path: Path) -> Iterator[ModelFiles]:
    made = ModelFiles(tmp_path / "models", door.url, TOKEN, 10**9)
    yield made
    made.close()


def test_two_callers_at_once_load_a_model_once() -> None:
    loads: list[str] = []

    def load(model_id: str, digest: str) -> Loaded:
        loads.append(digest)
        time.sleep(0.1)
        return Loaded(10)

    cache = ModelCache(load, 100)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: cache.ask("mdl_a", "a").result(5), range(8)))
    assert loads == ["a"] and len({id(model) for model in found}) == 1


def test_a_failed_load_reaches_every_waiting_caller_and_is_tried_again() -> None:
    attempts: list[str] = []
    began = threading.Event()

    def load(model_id: str, digest: str) -> Loaded:
        attempts.append(digest)
        began.set()
        time.sleep(0.1)
        if len(attempts) == 1:
            raise Busy("model_fetch_failed", "no")
        return Loaded(10)

    cache = ModelCache(load, 100)
    first = cache.ask("mdl_a", "a")
    began.wait(5)
    second = cache.ask("mdl_a", "a")
    assert isinstance(first.exception(5), Busy) and isinstance(second.exception(5), Busy)
    assert cache.ask("mdl_a", "a").result(5).size_bytes == 10
    assert cache.held_bytes == 10


def test_a_caller_that_goes_away_takes_the_load_from_nobody_else() -> None:
    opened = threading.Event()

    def load(model_id: str, digest: str) -> Loaded:
        assert opened.wait(5)
        return Loaded(10)

    cache = ModelCache(load, 100)

    async def scene() -> Loaded:
        gone, stays = (asyncio.create_task(outcome(cache.ask("mdl_a", "a"))) for _ in range(2))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.wait({gone})
        assert gone.cancelled()
        opened.set()
        return await asyncio.wait_for(stays, 5)

    assert asyncio.run(scene()) is cache.ask("mdl_a", "a").result(5)


def test_a_model_that_grows_makes_room() -> None:
    cache = ModelCache(lambda _, digest: Loaded(40), 100)
    for digest in "ab":
        cache.ask("mdl", digest).result(5)
    cache.ask("mdl", "a").result(5).size_bytes = 70
    cache.make_room(0, keep="a")
    assert cache.digests() == ["a"] and cache.held_bytes == 70


def test_the_least_recently_used_model_goes_first() -> None:
    cache = ModelCache(lambda _, digest: Loaded(40), 100)
    for digest in ("a", "b", "a", "c"):
        cache.ask("mdl", digest).result(5)
    assert cache.digests() == ["a", "c"] and cache.held_bytes == 80


def test_room_is_made_before_a_model_is_read() -> None:
    held: list[int] = []

    def load(model_id: str, digest: str) -> Loaded:
        cache.make_room(60)
        held.append(cache.held_bytes)
        return Loaded(60)

    cache = ModelCache(load, 100)
    for digest in ("a", "b", "c"):
        cache.ask("mdl", digest).result(5)
    assert held == [0, 0, 0] and cache.digests() == ["c"]


def test_a_model_over_the_bound_is_refused_and_evicts_nobody() -> None:
    cache = ModelCache(lambda _, digest: Loaded({"small": 60, "huge": 200}[digest]), 100)
    cache.ask("mdl", "small").result(5)
    with pytest.raises(Refused) as caught:
        cache.ask("mdl", "huge").result(5)
    assert (caught.value.status, caught.value.code) == (422, "model_too_large")
    assert cache.digests() == ["small"]


def test_a_folder_is_fetched_once_and_found_again(door: ModelDoor, files: ModelFiles, tmp_path: Path) -> None:
    door.folders["mdl_a"] = text_model(tmp_path / "made")
    digest = door.digest("mdl_a")
    folder = files.folder("mdl_a", digest)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (folder / name).read_bytes() == (tmp_path / "made" / name).read_bytes()
    asked = len(door.asked)
    assert files.folder("mdl_a", digest) == folder and len(door.asked) == asked


def test_bytes_that_do_not_match_are_not_kept(door: ModelDoor, files: ModelFiles, tmp_path: Path) -> None:
    door.folders["mdl_a"] = text_model(tmp_path / "made")
    door.corrupt.add("model.safetensors")
    with pytest.raises(Busy, match="does not match"):
        files.folder("mdl_a", door.digest("mdl_a"))
    assert list((tmp_path / "models").iterdir()) == []
    door.corrupt.clear()
    assert files.folder("mdl_a", door.digest("mdl_a")).is_dir()


def test_a_deleted_model_is_not_found(files: ModelFiles) -> None:
    with pytest.raises(Refused) as caught:
        files.folder("mdl_gone", "0" * 64)
    assert (caught.value.status, caught.value.param) == (404, "model")


def test_an_api_that_is_down_means_try_again(door: ModelDoor, files: ModelFiles) -> None:
    door.close()
    with pytest.raises(Busy) as caught:
        files.folder("mdl_a", "0" * 64)
    assert caught.value.status == 503


@pytest.mark.parametrize("digest", ["", "../" + "0" * 61, "0" * 63 + "/", "A" * 64])
def test_a_digest_never_becomes_a_path(files: ModelFiles, digest: str) -> None:
    with pytest.raises(Refused) as caught:
        files.folder("mdl_a", digest)
    assert caught.value.code == "invalid_digest"


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc/outside", "a//b"])
def test_a_listed_path_never_leaves_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(Busy, match="unsafe path"):
        download(httpx2.Client(), {"path": path, "size": 1, "sha256": "", "url": "/x"}, tmp_path / "part")


def test_the_disk_is_bounded_and_loaded_models_keep_their_folder(door: ModelDoor, tmp_path: Path) -> None:
    for at in range(3):
        door.folders[f"mdl_{at}"] = text_model(tmp_path / f"made{at}", seed=at)
    size = sum(file.stat().st_size for file in (tmp_path / "made0").iterdir())
    files = ModelFiles(tmp_path / "models", door.url, TOKEN, int(2.5 * size))
    digests = [door.digest(f"mdl_{at}") for at in range(3)]
    files.in_use = lambda: [digests[0]]
    for at in range(3):
        files.folder(f"mdl_{at}", digests[at])
        time.sleep(0.01)
    files.close()
    assert {folder.name for folder in (tmp_path / "models").iterdir()} == {digests[0], digests[2]}


def test_leftovers_of_a_killed_fetch_are_cleared_at_start(door: ModelDoor, tmp_path: Path) -> None:
    (tmp_path / "models" / "part-abc").mkdir(parents=True)
    ModelFiles(tmp_path / "models", door.url, TOKEN, 10**9).close()
    assert list((tmp_path / "models").iterdir()) == []
