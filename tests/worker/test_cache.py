"""Files kept by content."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.cache import Cache, DigestMismatch


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def bringing(content: bytes, calls: list[int]) -> Callable[[Path], None]:
    def fetch(part: Path) -> None:
        calls.append(1)
        part.write_bytes(content)

    return fetch


def test_a_file_is_fetched_once_and_placed_in_every_run_that_wants_it(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path, 10**6), []
    for run in ("one", "two"):
        cache.place(sha(b"x"), 1, tmp_path / "runs" / run / "rows", bringing(b"x", calls))
    assert len(calls) == 1
    assert (tmp_path / "runs" / "two" / "rows").read_bytes() == b"x"


def test_bytes_with_the_wrong_digest_are_asked_for_again_and_then_refused(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path, 10**6), []
    with pytest.raises(DigestMismatch, match=sha(b"right")):
        cache.place(sha(b"right"), 5, tmp_path / "rows", bringing(b"wrong", calls))
    assert len(calls) == 2 and not (tmp_path / "rows").exists()
    assert not [p for p in (tmp_path / "files").rglob("*") if p.is_file()]


def test_a_kept_file_that_was_cut_short_is_fetched_again(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path, 10**6), []
    cache.place(sha(b"whole"), 5, tmp_path / "a", bringing(b"whole", calls))
    kept = next(p for p in (tmp_path / "files").rglob("*") if p.is_file())
    kept.chmod(0o600)
    os.truncate(kept, 2)
    cache.place(sha(b"whole"), 5, tmp_path / "b", bringing(b"whole", calls))
    assert len(calls) == 2 and (tmp_path / "b").read_bytes() == b"whole"


def test_the_least_recently_used_files_go_first_and_files_in_use_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 25)
    for age, letter in enumerate((b"a", b"b", b"c", b"d")):
        content = letter * 10
        cache.place(sha(content), 10, tmp_path / "runs" / letter.decode(), bringing(content, []))
        kept = tmp_path / "files" / sha(content)[:2] / sha(content)
        os.utime(kept, (1000 + age, 1000 + age))
    for letter in "bcd":
        (tmp_path / "runs" / letter).unlink()
    assert cache.evict() == 10
    left = {p.read_bytes()[:1] for p in (tmp_path / "files").rglob("*") if p.is_file()}
    assert left == {b"a", b"c", b"d"}, "a is in use, b was the oldest of the rest"


def test_a_download_on_its_way_is_not_evicted_but_a_forgotten_one_is(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 0)
    fresh, old = tmp_path / "files" / "fresh.part", tmp_path / "files" / "old.part"
    fresh.write_bytes(b"x")
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    cache.evict()
    assert fresh.exists() and not old.exists()


def test_many_runs_may_ask_for_one_file_while_it_is_evicted(tmp_path: Path) -> None:
    cache, content = Cache(tmp_path, 0), b"y" * 1000

    def place(number: int) -> bytes:
        target = tmp_path / "runs" / str(number)
        cache.place(sha(content), len(content), target, bringing(content, []))
        cache.evict()
        return target.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(place, range(40))) == {content}


def test_prepared_shards_have_a_limit_of_their_own_and_rest_an_hour(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 15)
    for age, name in ((9000, "oldest"), (8000, "older"), (0, "fresh")):
        folder = cache.prepared / name
        folder.mkdir()
        (folder / "tokens.bin").write_bytes(b"t" * 10)
        os.utime(folder, (time.time() - age,) * 2)
    assert cache.evict() == 20
    assert [entry.name for entry in cache.prepared.iterdir()] == ["fresh"]
    assert cache.evict() == 0
