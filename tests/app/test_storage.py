"""Bytes: whole or not at all, flat memory, sizes and digests, locally and on an S3-compatible server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import pytest

from app.errors import ApiError, TooLarge
from app.storage import Store
from tests.services import S3

MB = 1 << 20


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """An S3-compatible server on a free port, in a process of its own."""
    server = S3()
    yield server.url
    server.stop()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of each kind in turn."""
    if request.param == "file":
        return Store.open(f"file://{tmp_path / 'a folder'}")
    endpoint: str = request.getfixturevalue("s3_endpoint")
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    bucket = f"b{os.urandom(6).hex()}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return Store.open(f"s3://{bucket}/prefix")


async def chunks(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


def collected(store: Store, key: str, start: int = 0, end: int | None = None) -> bytes:
    async def collect() -> bytes:
        return b"".join([block async for block in store.stream(key, start, end)])

    return asyncio.run(collect())


def test_a_streamed_object_has_its_size_and_digest_and_reads_back(store: Store) -> None:
    blocks = [os.urandom(700_000) for _ in range(10)]
    whole = b"".join(blocks)
    stored = asyncio.run(store.put_stream("datasets/ds_1/file.bin", chunks(*blocks)))
    assert (stored.size, stored.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert collected(store, "datasets/ds_1/file.bin") == whole == store.get("datasets/ds_1/file.bin")


def test_a_range_is_cut_at_the_end_of_the_object(store: Store) -> None:
    store.put("a/b.txt", b"0123456789")
    assert store.get_range("a/b.txt", 2, 5) == b"234"
    assert store.get_range("a/b.txt", 8, 100) == b"89" == collected(store, "a/b.txt", 8)
    assert store.get_range("a/b.txt", 10, 20) == b"" == store.get_range("a/b.txt", 5, 5)


def test_an_empty_object_is_an_object(store: Store) -> None:
    stored = asyncio.run(store.put_stream("a/empty", chunks()))
    assert stored.size == 0 and store.exists("a/empty") and store.get("a/empty") == b""


def test_a_missing_object_is_a_missing_file(store: Store) -> None:
    assert store.exists("no/such") is False
    for read in (store.get, store.size, lambda key: collected(store, key)):
        with pytest.raises(FileNotFoundError, match="no such object"):
            read("no/such")


def test_listing_and_deleting_stay_inside_the_folder(store: Store) -> None:
    for key in ("ds/a/1", "ds/a/2/3", "ds/ab/1", "ds/a.txt"):
        store.put(key, b"12345")
    assert sorted(store.list("ds/a")) == [("ds/a/1", 5), ("ds/a/2/3", 5)]
    assert store.delete("ds/a") == 10 and store.delete("ds/a") == 0
    assert sorted(key for key, _ in store.list("ds")) == ["ds/a.txt", "ds/ab/1"]
    assert store.delete("ds/a.txt") == 5 and not store.exists("ds/a.txt")


def test_a_stream_that_breaks_off_leaves_nothing(store: Store, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield os.urandom(12 * MB)
        raise ConnectionResetError("the client went away")

    with pytest.raises((ConnectionResetError, ApiError)):
        asyncio.run(store.put_stream("up/file", broken()))
    assert not store.exists("up/file") and list(store.list("up")) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_stream_over_its_limit_is_refused_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(TooLarge, match="larger than the 1000 bytes"):
        asyncio.run(store.put_stream("up/file", chunks(b"x" * 600, b"x" * 600), limit=1000))
    assert not store.exists("up/file")


def test_nobody_sees_half_an_object(tmp_path: Path) -> None:
    store = Store.open(f"file://{tmp_path}")
    store.put("a/file", b"old")
    seen: list[bytes] = []

    async def watched() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"n" * MB
            seen.append(store.get("a/file"))

    asyncio.run(store.put_stream("a/file", watched()))
    assert set(seen) == {b"old"} and store.size("a/file") == 20 * MB


def test_a_large_stream_neither_grows_memory_nor_holds_the_loop(tmp_path: Path) -> None:
    store = Store.open(f"file://{tmp_path}")
    waits: list[float] = []

    async def upload() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        async def watch() -> None:
            while not done.is_set():
                began = loop.time()
                await asyncio.sleep(0.005)
                waits.append(loop.time() - began)

        watching = asyncio.create_task(watch())
        block = os.urandom(64 * 1024)
        await store.put_stream("a/warm", chunks(*[block] * 256))
        before = _resident_mb()
        stored = await store.put_stream("a/large", chunks(*[block] * 4096))
        grown = _resident_mb() - before
        done.set()
        await watching
        assert stored.size == 256 * MB and grown < 40, grown

    asyncio.run(upload())
    assert sorted(waits)[int(len(waits) * 0.99)] < 0.2


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../x", "a//b", "", "a b", "a/.hidden/..", "a\0b", "é"])
def test_a_key_that_could_leave_the_store_is_refused(tmp_path: Path, key: str) -> None:
    store = Store.open(f"file://{tmp_path / 'store'}")
    for act in (lambda: store.put(key, b"x"), lambda: store.get(key), lambda: store.delete(key)):
        with pytest.raises(ValueError, match="not a storage key"):
            act()


def test_a_full_disk_answers_507(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(f"file://{tmp_path}")

    async def full() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError(28, "No space left on device")

    with pytest.raises(ApiError) as caught:
        asyncio.run(store.put_stream("a/file", full()))
    assert caught.value.status == 507 and caught.value.code == "disk_full"


def test_a_store_that_is_gone_answers_503_without_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = Store.open(f"file://{folder}")
    folder.rmdir()
    folder.write_text("a file where the folder was")
    with pytest.raises(ApiError) as caught:
        store.put("a/file", b"x")
    assert caught.value.status == 503 and str(tmp_path) not in caught.value.message


def test_two_writers_of_one_key_leave_one_whole_object(tmp_path: Path) -> None:
    store = Store.open(f"file://{tmp_path}")
    writers = [threading.Thread(target=store.put, args=("a/file", byte * (3 * MB))) for byte in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.get("a/file") in {b"a" * (3 * MB), b"b" * (3 * MB)}


def test_an_unknown_kind_of_store_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="GROUNDWORK_STORE_URL must start with"):
        Store.open("ftp://host/folder")


def test_pieces_grow_with_what_may_come_so_that_ten_thousand_suffice(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    bucket = f"b{os.urandom(6).hex()}"
    client.create_bucket(Bucket=bucket)
    store = Store.open(f"s3://{bucket}/prefix")
    pieces = []
    for limit in (None, 80_000 * MB):
        asyncio.run(store.put_stream("large", chunks(*[bytes(MB)] * 16), limit))
        pieces.append(client.head_object(Bucket=bucket, Key="prefix/large")["ETag"].strip('"').partition("-")[2])
    assert pieces == ["4", "2"], "5 MiB apiece where nothing is said, 8 MiB where 80,000 MiB may come"
