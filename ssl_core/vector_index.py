"""An approximate index over the vectors of a dataset, so that a search among very many need not look at all of them.

    about = build(Path("embeddings.parquet"), Path("artifact"), told=lambda done, total: None)
    about["recall_at_10"]                            # 0.99, of queries that chose nothing

Inverted lists (Faiss, `IndexIVFScalarQuantizer`): k-means cuts the sphere into about 4 sqrt(n) cells, and a search
looks into the `probes` cells nearest to the query. Vectors in it have length 1 and 16 bits a number; who searches
scores the rows it names again, in full. Needs numpy and faiss, no torch. n rows, D numbers each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

INDEX, ABOUT = "index.faiss", "index.json"
NEIGHBOURS = 10
"""Recall is told of this many."""
WANTED_RECALL, LEAST_RECALL = 0.98, 0.9
ASKED = 512
"""Rows whose true neighbours are found: with one half `probes` is chosen, with the other the recall is measured."""
CANDIDATES = 4
"""Rows that are scored in full for each one that is wanted, and at least `LEAST_CANDIDATES`."""
LEAST_CANDIDATES = 64
_BATCH = 8192
_MOST_CELLS = 8  # one of so many is looked into, at most: beyond it a search of everything is as fast
_TRAINED_ON = 64  # rows a cell
_LEAST_CELL = 39  # Faiss finds fewer rows a cell too few to learn from
_TIE = 1e-6
_KEPT = 64  # true neighbours that are kept of each row asked, ties with the tenth among them


def unit(vectors: Vectors) -> Vectors:
    """(m, D) of length 1; a row without a direction (zero, or not finite) is all zeros, and near to nothing."""
    import numpy as np

    sizes = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    known = np.isfinite(sizes) & (sizes > 0)
    return np.where(known, vectors / np.where(known, sizes, 1), 0).astype(np.float32)


def batches(path: Path, rows: int = _BATCH) -> Iterator[Vectors]:
    """The vectors of an `embeddings.parquet` in their order, (m, D) of length 1 at a time."""
    import numpy as np
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path, memory_map=False) as file:
        for batch in file.iter_batches(batch_size=rows, columns=["embedding"], use_threads=False):
            column = batch.column("embedding")
            flat = np.asarray(column.flatten(), dtype=np.float32)
            yield unit(flat.reshape(len(column), -1))


def build(vectors: Path, folder: Path, told: Callable[[int, int], None], threads: int = 1) -> dict[str, Any]:
    """Write `index.faiss` and `index.json` to `folder`, and return what the latter says.

    The same vectors give the same index. Where an eighth of the cells holds too few of the neighbours, an
    index is of no use for these vectors, and none is written.

    Args:
        vectors: an `embeddings.parquet` of at least 100 rows.
        folder: where they go.
        told: called with rows done and rows in all, again and again; what it raises ends the work.
        threads: of Faiss.
    """
    import faiss
    import numpy as np
    import pyarrow.parquet as parquet

    total = int(parquet.read_metadata(vectors).num_rows)
    lists = max(1, min(round(4 * math.sqrt(total)), total // _LEAST_CELL))
    faiss.omp_set_num_threads(threads)
    random = np.random.default_rng(0)
    drawn = np.sort(random.permutation(total)[: lists * _TRAINED_ON])
    asked = np.sort(random.permutation(total)[: min(ASKED, total // 4)])
    known = _rows(vectors, np.union1d(drawn, asked))
    index = _empty(known.shape[1], lists)
    index.train(known[np.searchsorted(np.union1d(drawn, asked), drawn)])
    queries = known[np.searchsorted(np.union1d(drawn, asked), asked)]
    del known
    nearest = _Nearest(queries, asked)
    for batch in batches(vectors):
        nearest.look(batch, index.ntotal)
        index.add(batch)
        told(index.ntotal, total)
    order = random.permutation(len(asked))
    chosen, measured = order[: len(order) // 2], order[len(order) // 2 :]
    for probes in _doubling(max(1, lists // _MOST_CELLS)):
        if nearest.recall(index, probes, chosen) >= WANTED_RECALL:
            break
    about = {
        "rows": total, "lists": lists, "probes": probes, "queries": len(measured),
        "recall_at_10": round(nearest.recall(index, probes, measured), 4),
    }  # fmt: skip
    if about["recall_at_10"] >= LEAST_RECALL:
        faiss.write_index(index, str(folder / INDEX))
        (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    return about


def candidates(index: Any, queries: Vectors, count: int, probes: int) -> NDArray[np.int64]:
    """(q, c) row numbers in which the nearest `count` of each query are likely to be; -1 where there are no more."""
    import faiss

    wanted = min(max(CANDIDATES * count, LEAST_CANDIDATES), index.ntotal)
    how = faiss.SearchParametersIVF()
    how.nprobe = probes
    found: NDArray[np.int64] = index.search(queries, wanted, params=how)[1]
    return found


class _Nearest:
    """The true neighbours of some rows, found while all rows pass by, and how many of them an index names."""

    def __init__(self, queries: Vectors, own: NDArray[np.int64]) -> None:
        """`queries`: (q, D); `own`: (q,) the number of each among the rows, which is no neighbour of itself."""
        import numpy as np

        self._queries, self._own = queries, own
        self._scores = np.full((len(queries), _KEPT), -np.inf, dtype=np.float32)
        self._rows = np.full((len(queries), _KEPT), -1, dtype=np.int64)

    def look(self, batch: Vectors, first: int) -> None:
        """Rows `first`, `first + 1`, … of the dataset."""
        import numpy as np

        scores = self._queries @ batch.T
        inside = np.flatnonzero((self._own >= first) & (self._own < first + len(batch)))
        scores[inside, self._own[inside] - first] = -np.inf
        numbers = np.broadcast_to(np.arange(first, first + len(batch)), scores.shape)
        both, rows = np.hstack([self._scores, scores]), np.hstack([self._rows, numbers])
        best = np.argpartition(-both, _KEPT - 1, axis=1)[:, :_KEPT]
        self._scores, self._rows = np.take_along_axis(both, best, 1), np.take_along_axis(rows, best, 1)

    def recall(self, index: Any, probes: int, which: NDArray[np.int64]) -> float:
        """Mean share of the ten nearest that are among the rows the index names, for the queries `which`.

        Of rows that are equally near as the tenth, one is as good as another.
        """
        import numpy as np

        named = candidates(index, self._queries[which], NEIGHBOURS + 1, probes)
        shares = []
        for rows, query in zip(named, which, strict=True):
            scores = self._scores[query]
            tenth = np.sort(scores)[-NEIGHBOURS]
            good = self._rows[query][scores >= tenth - _TIE]
            shares.append(min(NEIGHBOURS, len(np.intersect1d(rows, good))) / NEIGHBOURS)
        return float(np.mean(shares))


def _empty(width: int, lists: int) -> Any:
    import faiss

    half = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, lists, half, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.seed, index.cp.niter, index.cp.spherical = 1234, 10, True
    index.cp.min_points_per_centroid = 1
    return index


def _rows(vectors: Path, wanted: NDArray[np.int64]) -> Vectors:
    """(len(wanted), D); `wanted` ascends."""
    import numpy as np

    found, first = [], 0
    for batch in batches(vectors):
        start, end = np.searchsorted(wanted, [first, first + len(batch)])
        found.append(batch[wanted[start:end] - first])
        first += len(batch)
    return np.concatenate(found)


def _doubling(most: int) -> Iterator[int]:
    """1, 2, 4, … and at last `most`."""
    each = 1
    while each < most:
        yield each
        each *= 2
    yield most
