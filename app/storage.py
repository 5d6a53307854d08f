"""The only place that knows where bytes live: a local folder, or an S3-compatible bucket, by one URL.

Keys are made by the server (`datasets/ds_…/rows-00000.parquet`), never by a user. A write is seen whole or not at all:
locally a temporary file, fsync, rename; on S3 a multipart upload that is completed last and aborted on any error.
Memory stays flat whatever the size, hashes are taken in a thread, and the event loop only passes buffers on.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from app.errors import InsufficientStorage, TooLarge, Unavailable
from app.telemetry import stored
from app.threads import in_bulk, in_thread

BLOCK = 1 << 20  # bytes handed on at a time
_JOINED = 256 << 10  # bytes worth a thread of their own
# (bytes of a piece, pieces in flight): what bounds the memory of an upload. 5 MiB is the smallest part S3 takes, and
# it takes at most 10,000, so that an object which may grow past 48 GiB is sent in larger ones.
_S3_PIECES = (5 << 20, 2)
_S3_MOST_PIECES = 10_000
_S3_LARGEST_PIECE = 512 << 20  # 10,000 of them are the largest object that S3 keeps
_LOCAL_PIECES = (1 << 20, 1)
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?")
_READ_SECONDS = "3600s"  # obstore counts the whole body, not the silence between two chunks


@dataclass(frozen=True)
class Stored:
    """What a finished write holds."""

    key: str
    size: int
    sha256: str


class Store:
    """Objects under keys. Raises `FileNotFoundError`, `Unavailable` (503) and `InsufficientStorage` (507)."""

    def __init__(self, backend: LocalStore | S3Store, folder: Path | None) -> None:
        self._backend = backend
        self._folder = folder

    @classmethod
    def open(cls, url: str) -> Store:
        """`file:///folder`, made when missing, or `s3://bucket/prefix` with the usual `AWS_*` variables."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            folder = Path(unquote(parts.path))
            folder.mkdir(parents=True, exist_ok=True)
            return cls(LocalStore(folder, automatic_cleanup=True), folder)
        if parts.scheme == "s3":
            plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
            return cls(S3Store.from_url(url, client_options={"timeout": _READ_SECONDS, "allow_http": plain}), None)
        raise ValueError(f"GROUNDWORK_STORE_URL must start with file:/// or s3://, not {parts.scheme!r}")

    async def put_stream(self, key: str, chunks: AsyncIterable[bytes], limit: int | None = None) -> Stored:
        """Write an async stream under `key`; over `limit` bytes raises `TooLarge` and leaves nothing behind.

        Give a limit where more than 48 GiB may come: an S3 store takes its pieces so large that they suffice.
        """
        seen = _Seen(limit)
        with _translated():
            stream = seen.watch_async(chunks)
            piece, flying = self._pieces(limit)
            await obstore.put_async(self._backend, _checked(key), stream, chunk_size=piece, max_concurrency=flying)
            await in_thread(self._make_durable, key)
        return seen.stored(key)

    def put(self, key: str, content: bytes | Iterable[bytes], limit: int | None = None) -> Stored:
        """The same from a thread, for bytes or a plain iterator of bytes."""
        seen = _Seen(limit)
        chunks = [content] if isinstance(content, bytes) else content
        with _translated():
            piece, flying = self._pieces(limit)
            obstore.put(self._backend, _checked(key), seen.watch(chunks), chunk_size=piece, max_concurrency=flying)
            self._make_durable(key)
        return seen.stored(key)

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of [start, end), a block at a time, for a streaming reply. An empty range yields nothing."""
        with _translated():
            size = (await obstore.head_async(self._backend, _checked(key)))["size"]
            end = size if end is None else min(end, size)
            if start >= end:
                return
            got = await obstore.get_async(self._backend, key, options={"range": (start, end)})
            async for block in got.stream(min_chunk_size=BLOCK):
                yield bytes(block)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The same from a thread."""
        with _translated():
            size = obstore.head(self._backend, _checked(key))["size"]
            end = size if end is None else min(end, size)
            if start >= end:
                return
            got = obstore.get(self._backend, key, options={"range": (start, end)})
            for block in got.stream(min_chunk_size=BLOCK):
                yield bytes(block)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes of [start, end), at most up to the object's end, in one piece."""
        return b"".join(self.read(key, start, end))

    def get(self, key: str) -> bytes:
        """A whole small object in one piece."""
        return b"".join(self.read(key))

    def size(self, key: str) -> int:
        """Bytes; raises `FileNotFoundError`."""
        with _translated():
            return int(obstore.head(self._backend, _checked(key))["size"])

    def exists(self, key: str) -> bool:
        """Whether a finished object lies under `key`."""
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(key, bytes) of every object below the folder `prefix`."""
        with _translated():
            for batch in obstore.list(self._backend, _checked(prefix), chunk_size=1000):
                yield from ((found["path"], found["size"]) for found in batch)

    def delete(self, prefix: str) -> int:
        """Delete the object `prefix` and everything below the folder `prefix`; returns the bytes freed."""
        freed = 0
        for key, size in [*self.list(prefix), *([(prefix, self.size(prefix))] if self.exists(prefix) else [])]:
            with _translated():
                obstore.delete(self._backend, key)
            freed += size
        return freed

    def free_bytes(self) -> int | None:
        """Head-room of the local disk; None where the store has no bound that we could see."""
        if self._folder is None:
            return None
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def _pieces(self, limit: int | None) -> tuple[int, int]:
        """How large a piece is, and how many are in flight, for an object of at most `limit` bytes."""
        if self._folder is not None:
            return _LOCAL_PIECES
        smallest, flying = _S3_PIECES
        return min(max(smallest, -(-(limit or 0) // _S3_MOST_PIECES)), _S3_LARGEST_PIECE), flying

    def _make_durable(self, key: str) -> None:
        """The bytes and the names leading to them survive a power cut before anybody is told of them (R14)."""
        if self._folder is None:
            return
        path = self._folder / key
        for each in (path, *path.parents):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if each == self._folder:
                break


class _Seen:
    """Size and sha256 of what passes; small chunks are joined, so that threads and parts are worth their cost."""

    def __init__(self, limit: int | None) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._limit = limit

    async def watch_async(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        joined, size = list[bytes](), 0
        async for chunk in chunks:
            self._count(chunk)
            joined.append(chunk)
            size += len(chunk)
            if size >= _JOINED:
                block = b"".join(joined)
                joined, size = [], 0
                await in_bulk(self.digest.update, block)
                yield block
        if size:
            block = b"".join(joined)
            self.digest.update(block)
            yield block

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._count(chunk)
            self.digest.update(chunk)
            if chunk:
                yield chunk

    def stored(self, key: str) -> Stored:
        """All of it is durable under `key`."""
        stored(self.size)
        return Stored(key, self.size, self.digest.hexdigest())

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._limit is not None and self.size > self._limit:
            raise TooLarge("too_large", f"The body is larger than the {self._limit} bytes allowed.")


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a storage key: {key!r}")
    return key


@contextmanager
def _translated() -> Iterator[None]:
    """The library's errors in our words; never a path of the disk."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError("no such object") from None
    except (BaseError, OSError) as error:
        if "No space left" in str(error) or getattr(error, "errno", None) == 28:
            raise InsufficientStorage("disk_full", "The store has no room left.") from error
        raise Unavailable("storage_unavailable", "The store cannot be reached just now.") from error
