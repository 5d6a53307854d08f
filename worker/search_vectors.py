"""The vectors of an embedded dataset, on this machine: fetched once, made ready for searching, mapped into memory.

What an `embed` job left (docs/contracts.md §4) becomes a folder named by the digest of its files:

    vectors.npy   (n, D) float32, each row of length 1
    labels.npy    (n,) int32 into `labels` of about.json; -1 = none. Only where the job kept labels
    about.json    rows, dimensions, labels, recall
    index.faiss   where the job made one

Files are mapped, not read: pages that searches touch are the kernel's to keep or to drop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import httpx2 as httpx
import numpy as np
import pyarrow.parquet as parquet
import structlog
from numpy.typing import NDArray

from ssl_core import vector_index
from worker.inference_errors import Busy, InferenceError, Refused
from worker.inference_files import SAFE_DIGEST, commit, download
from worker.loading import Loads
from worker.search_requests import VectorFile

log = structlog.get_logger()
EMBEDDINGS = "embeddings.parquet"


@dataclass(frozen=True, eq=False)
class Vectors:
    """One embedded dataset, mapped.

    Attributes:
        matrix: (n, D) float32, rows of length 1, or zero where a vector had no direction.
        labels: (n,) int32 into `names`; None where the job kept no labels.
        index: Faiss' inverted lists; None where every search looks at every row.
        probes: cells to look into.
        recall: share of the ten nearest that the index found when it was made.
        size_bytes: of the files.
    """

    matrix: NDArray[np.float32]
    labels: NDArray[np.int32] | None
    names: list[str]
    index: Any
    probes: int
    recall: float | None
    size_bytes: int


class VectorCache:
    """Opened vectors, bounded by the bytes of their files; the least recently used go first, from the disk too.

    What is being searched lives on until its last search lets go of it.
    """

    def __init__(self, root: Path, api_url: str, token: str, max_bytes: int) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._client = httpx.Client(
            base_url=api_url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(60, connect=5)
        )
        self._opened: Loads[Vectors] = Loads("vectors")
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob("part-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def ask(self, job_id: str, files: Sequence[VectorFile]) -> Future[Vectors]:
        """The vectors that this job left, to be waited for with `outcome`; a second caller shares the first one's load.

        Its errors: Refused, 422 `vectors_too_large`, they alone are over the bound; Busy, the API cannot be reached or
        has them no longer, or what it sent does not match its digest.
        """
        digest = _digest(files)
        return self._opened.ask(digest, partial(self._open, digest, job_id, files))

    def close(self) -> None:
        """Close the connections."""
        self._opened.close()
        self._client.close()

    @property
    def held_bytes(self) -> int:
        """Of all opened files."""
        return sum(vectors.size_bytes for vectors in self._opened.done().values())

    def _open(self, digest: str, job_id: str, files: Sequence[VectorFile]) -> Vectors:
        folder = self._root / digest
        if not folder.is_dir():
            self._check_size(sum(file.size for file in files))
            self._fetch(job_id, files, folder)
        found = _opened(folder)
        self._check_size(found.size_bytes)
        os.utime(folder)
        self._make_room(digest)
        return found

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            words = f"The dataset's vectors have {size} bytes and {self._max_bytes} are allowed (SEARCH_CACHE_BYTES)."
            raise Refused(422, "vectors_too_large", words)

    def _fetch(self, job_id: str, files: Sequence[VectorFile], final: Path) -> None:
        part = Path(tempfile.mkdtemp(prefix="part-", dir=self._root))
        try:
            for file in files:
                url = f"/internal/v1/vectors/{job_id}/{file.path}"
                download(self._client, {**file.model_dump(), "url": url}, part)
            self._check_size(_needed(part))
            _convert(part)
            commit(part, final)
        except (httpx.HTTPError, OSError) as error:
            words = f"The dataset's vectors could not be fetched: {type(error).__name__}."
            raise Busy("vectors_fetch_failed", words) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        log.info("vectors_fetched", job=job_id, bytes=_bytes_of(final))

    def _make_room(self, keep: str) -> None:
        """Let go of the least recently used until all fit: first what earlier processes left, then what is open."""
        with self._opened.lock:
            known = {path.name: path for path in self._root.iterdir() if SAFE_DIGEST.fullmatch(path.name)}
            sizes = {name: _bytes_of(path) for name, path in known.items()}
            unopened = sorted(known.keys() - self._opened.slots.keys(), key=lambda name: known[name].stat().st_mtime)
            total = sum(sizes.values())
            for name in [*unopened, *self._opened.slots]:
                if total <= self._max_bytes:
                    return
                slot = self._opened.slots.get(name)
                if name == keep or (slot is not None and not slot.done()):
                    continue
                self._opened.slots.pop(name, None)
                # Whoever maps its files still has them.
                shutil.rmtree(self._root / name, ignore_errors=True)
                total -= sizes.get(name, 0)
                log.info("vectors_evicted", digest=name, bytes=sizes.get(name, 0))


def _digest(files: Sequence[VectorFile]) -> str:
    lines = sorted(f"{file.path} {file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _needed(part: Path) -> int:
    """Bytes of what `_convert` makes, as the footer tells."""
    try:
        about = parquet.read_metadata(part / EMBEDDINGS)
        width = parquet.read_schema(part / EMBEDDINGS).field("embedding").type.list_size
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _unreadable(error) from error
    index = part / vector_index.INDEX
    return int(about.num_rows) * (4 * int(width) + 4) + (index.stat().st_size if index.exists() else 0)


def _convert(part: Path) -> None:
    """`embeddings.parquet` into arrays that can be mapped."""
    source = part / EMBEDDINGS
    schema, rows = parquet.read_schema(source), int(parquet.read_metadata(source).num_rows)
    width = int(schema.field("embedding").type.list_size)
    made = np.lib.format.open_memmap(part / "vectors.npy", mode="w+", dtype=np.float32, shape=(rows, width))
    at = 0
    for batch in vector_index.batches(source):
        made[at : at + len(batch)] = batch
        at += len(batch)
    made.flush()
    names: list[str] | None = None
    if "label" in schema.names:
        names = _labels(source, rows, part / "labels.npy")
    about = {"rows": rows, "dimensions": width, "labels": names, "index": None}
    if (part / vector_index.ABOUT).exists():
        about["index"] = json.loads((part / vector_index.ABOUT).read_text(encoding="utf-8"))
    (part / "about.json").write_text(json.dumps(about), encoding="utf-8")
    source.unlink()


def _labels(source: Path, rows: int, target: Path) -> list[str]:
    """Write the label of each row as a number; the names in the order of their numbers."""
    numbers: dict[str, int] = {}
    found = np.full(rows, -1, dtype=np.int32)
    for at, label in enumerate(_each_label(source)):
        if label is not None:
            found[at] = numbers.setdefault(label, len(numbers))
    np.save(target, found, allow_pickle=False)
    return list(numbers)


def _each_label(source: Path) -> Iterator[str | None]:
    with parquet.ParquetFile(source) as file:
        for batch in file.iter_batches(batch_size=8192, columns=["label"], use_threads=False):
            yield from batch.column("label").to_pylist()


def _opened(folder: Path) -> Vectors:
    """Map a folder that `_convert` made. Raises InferenceError where it is damaged."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        matrix = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        labels = None
        if about["labels"] is not None:
            labels = np.load(folder / "labels.npy", allow_pickle=False)
        index, made = None, about["index"]
        if made is not None:
            index = faiss.read_index(str(folder / vector_index.INDEX), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            if (index.ntotal, index.d) != matrix.shape:
                raise ValueError("the index is of other vectors")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)  # fetched anew by the next request
        raise _unreadable(error) from error
    probes, recall = (0, None) if made is None else (int(made["probes"]), float(made["recall_at_10"]))
    return Vectors(matrix, labels, about["labels"] or [], index, probes, recall, _bytes_of(folder))


def _unreadable(error: Exception) -> InferenceError:
    return InferenceError(500, "invalid_vectors", f"The dataset's vectors cannot be opened: {type(error).__name__}.")


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
