"""Searches a second: exact, by the index, and plain numpy brute force beside them.

    python -m benchmarks.search --out benchmarks/results/search.json
    python -m benchmarks.search --rows 10000 --seconds 2

In this process and without HTTP: what the inference role's search thread does. Vectors lie in clusters, as those of
trained encoders do; noise without clusters is measured too, because no index helps there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from ssl_core import vector_index
from worker.search import Query, approximate, exact
from worker.search_vectors import Vectors

LIMIT = 10
TOGETHER = 16
"""Queries that one pass answers, where many callers wait."""


def drawn(rows: int, width: int, spread: float, seed: int) -> NDArray[np.float32]:
    """(rows, width) around 500 centres, always the same, with noise of this size beside each number."""
    middle = np.random.default_rng(0).standard_normal((500, width), dtype=np.float32)
    random = np.random.default_rng(seed)
    noise = random.standard_normal((rows, width), dtype=np.float32)
    return np.asarray(middle[random.integers(0, len(middle), rows)] + np.float32(spread) * noise)


def a_second(work: Callable[[int], Any], queries: int, seconds: float) -> float:
    """How many queries a second `work(turn)` answers, each turn being `queries` of them."""
    work(0)
    began, turns = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        turns += 1
        work(turns)
    return round(turns * queries / (time.perf_counter() - began), 1)


def measured(rows: int, width: int, spread: float, seconds: float) -> dict[str, Any]:
    """One line of the table."""
    vectors = drawn(rows, width, spread, 1)
    matrix = vector_index.unit(vectors)
    asked = [Query(each, LIMIT) for each in vector_index.unit(drawn(256, width, spread, 2))]
    some = [[asked[(turn * TOGETHER + at) % 256] for at in range(TOGETHER)] for turn in range(16)]

    def brute(turn: int) -> NDArray[np.intp]:
        scores = matrix @ asked[turn % 256].vector
        best = np.argpartition(-scores, LIMIT)[:LIMIT]
        return np.asarray(best[np.argsort(-scores[best])])

    told: dict[str, Any] = {
        "rows": rows, "dimensions": width, "spread": spread,
        "numpy brute force": a_second(brute, 1, seconds),
        "exact": a_second(lambda turn: exact(matrix, None, [asked[turn % 256]]), 1, seconds),
        f"exact, {TOGETHER} at once": a_second(lambda turn: exact(matrix, None, some[turn % 16]), TOGETHER, seconds),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
        parquet.write_table(pa.table({"embedding": flat}), folder / "embeddings.parquet")
        began = time.perf_counter()
        about = vector_index.build(folder / "embeddings.parquet", folder, lambda done, total: None)
        told |= {"build seconds": round(time.perf_counter() - began, 1), "recall@10": about["recall_at_10"]}
        if not (folder / vector_index.INDEX).exists():
            return told | {"approximate": None}
        index = faiss.read_index(str(folder / vector_index.INDEX), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        opened = Vectors(matrix, None, [], index, about["probes"], about["recall_at_10"], 0)
        told["approximate"] = a_second(lambda turn: approximate(opened, [asked[turn % 256]]), 1, seconds)
        # Queries that were neither in the index nor in its measurement.
        pairs = [(approximate(opened, [each])[0], exact(matrix, None, [each])[0]) for each in asked[:100]]
        shared = [len({row for row, _ in one} & {row for row, _ in other}) for one, other in pairs]
        return told | {
            "recall@10 of new queries": round(sum(shared) / (LIMIT * len(pairs)), 4),
            "cells": about["lists"], "probes": about["probes"],
            "index bytes": (folder / vector_index.INDEX).stat().st_size,
        }  # fmt: skip


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--spread", type=float, nargs="+", default=[1.0, 3.0], help="noise beside the centres")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--note", default="", help="what else the machine did")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    lines = []
    for rows in given.rows:
        for spread in given.spread:
            lines.append(measured(rows, given.dimensions, spread, given.seconds))
            print(json.dumps(lines[-1]), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    whole = {
        "date": date.today().isoformat(), "machine": machine, "threads": threads, "load": os.getloadavg()[0],
        "note": given.note, "unit": "queries a second", "measured": lines,
    }  # fmt: skip
    if given.out is not None:
        given.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
