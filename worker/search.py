"""Nearest rows of an embedded dataset. Queries that wait at the same time share one pass over the vectors.

Scores are cosines, computed for the rows that are answered in float64 whichever way these were found; of rows that are
equally near the lower number comes first. n rows, D numbers each, q queries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import structlog
from anyio import to_thread
from numpy.typing import NDArray

from ssl_core import vector_index
from ssl_core.errors import DataError
from ssl_core.modalities import MODALITIES
from worker.inference_batcher import Batcher, Work
from worker.inference_errors import Refused
from worker.inference_requests import EmbedRequest
from worker.loading import outcome
from worker.search_requests import PreviewRequest, SearchRequest
from worker.search_vectors import VectorCache, Vectors

log = structlog.get_logger()
_BLOCK = 65_536
"""Rows that are looked at in one go: with all queries of a turn their scores are some 16 MB."""
_TOGETHER = 64
"""Queries of a turn."""
_SLACK = 1e-5
"""A float32 score of unit vectors may be off by this much."""
_TIES = 4096
"""Rows that are kept and scored again for a query, at most: a dataset may hold one text a million times."""
_MOST_WAITING = 4096
_CLASSES_NAMED = 10

Embedded = Callable[[EmbedRequest], Awaitable[tuple[Any, int]]]
"""The vector of a request's one item, and the tokens that were read."""


@dataclass(frozen=True)
class Query:
    """`vector`: (D,) float32 of length 1; `limit`: rows wanted."""

    vector: NDArray[np.float32]
    limit: int


@dataclass
class _Pool:
    """What may be among a query's nearest, while blocks of rows pass by."""

    floor: float = -np.inf
    """The score of the last of the best so far is at least this."""
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def take(self, first: int, scores: NDArray[np.float32], limit: int) -> None:
        """Scores (b,) of the rows `first`, `first + 1`, …; blocks come in ascending order."""
        near = np.flatnonzero(scores >= self.floor - _SLACK)
        if not len(near):
            return
        rows, scores = np.concatenate([self.rows, near + first]), np.concatenate([self.scores, scores[near]])
        if len(rows) > limit:
            self.floor = float(np.partition(scores, len(rows) - limit)[len(rows) - limit])
            kept = np.flatnonzero(scores >= self.floor - _SLACK)
            if len(kept) > _TIES:
                kept = np.sort(kept[np.argsort(-scores[kept], kind="stable")[:_TIES]])
            rows, scores = rows[kept], scores[kept]
        self.rows, self.scores = rows, scores


def exact(
    matrix: NDArray[np.float32], among: NDArray[np.int64] | None, queries: Sequence[Query]
) -> list[list[tuple[int, float]]]:
    """(row, cosine) of the nearest rows of each query, nearest first.

    Args:
        matrix: (n, D) of length 1.
        among: numbers of the rows to look at, ascending; None = all.
        queries: what they are to be near to.
    """
    asked = np.stack([query.vector for query in queries])
    pools = [_Pool() for _ in queries]
    total = len(matrix) if among is None else len(among)
    for first in range(0, total, _BLOCK):
        some = slice(first, first + _BLOCK)
        scores = asked @ (matrix[some] if among is None else matrix[among[some]]).T
        for query, pool, row in zip(queries, pools, scores, strict=True):
            pool.take(first, row, query.limit)
    found = [pool.rows if among is None else among[pool.rows] for pool in pools]
    return [_scored(matrix, rows, query) for rows, query in zip(found, queries, strict=True)]


def approximate(vectors: Vectors, queries: Sequence[Query]) -> list[list[tuple[int, float]]]:
    """The same by the dataset's index: some of the nearest may be missing."""
    most = max(query.limit for query in queries)
    asked = np.stack([query.vector for query in queries])
    named = vector_index.candidates(vectors.index, asked, most, vectors.probes)
    return [_scored(vectors.matrix, rows[rows >= 0], query) for rows, query in zip(named, queries, strict=True)]


def _scored(matrix: NDArray[np.float32], rows: NDArray[np.int64], query: Query) -> list[tuple[int, float]]:
    # Summed row by row: the same vector then has the same score wherever it stands, as in no matrix product.
    scores = (matrix[rows].astype(np.float64) * query.vector.astype(np.float64)).sum(axis=1)
    order = np.lexsort((rows, -scores))[: query.limit]
    return [(int(rows[at]), float(np.clip(scores[at], -1, 1))) for at in order]


class SearchDesk:
    """Answers `/search` and `/preview`."""

    def __init__(self, cache: VectorCache, embedded: Embedded) -> None:
        self._cache, self._embedded = cache, embedded
        self._batcher = Batcher(_MOST_WAITING)

    def close(self) -> None:
        """Search what is queued, then let go of everything."""
        self._batcher.close()
        self._cache.close()

    async def search(self, order: SearchRequest) -> dict[str, Any]:
        """`{"results": [{"row", "score"}], "tokens", "index": {"kind", "rows", "dimensions", "recall"}}`.

        Raises:
            Refused: a row, a label or a vector that does not fit these vectors; what the model says of the query.
            Busy: vectors cannot be fetched, or too much waits.
        """
        vectors = await outcome(self._cache.ask(order.job_id, order.files))
        vector, tokens = await self._vector(order, vectors)
        among = None if order.label is None else await to_thread.run_sync(_labelled, vectors, order.label)
        by_index = vectors.index is not None and not order.exact and among is None
        compute = partial(approximate, vectors) if by_index else partial(exact, vectors.matrix, among)
        group = (id(vectors), by_index, order.label)
        work = Work(group, compute, [Query(vector, order.limit)], [1], _TOGETHER)
        (found,) = await asyncio.wrap_future(self._batcher.submit(work))
        rows, width = vectors.matrix.shape
        about = {"kind": "approximate" if by_index else "exact", "rows": rows, "dimensions": width}
        about["recall"] = vectors.recall if by_index else None
        return {"results": [{"row": row, "score": score} for row, score in found], "tokens": tokens, "index": about}

    async def preview(self, order: PreviewRequest) -> dict[str, Any]:
        """`{"previews": [...]}`: of each item what ingest's preview would show, null where it cannot be decoded."""
        return {"previews": await to_thread.run_sync(_previews, order)}

    async def _vector(self, order: SearchRequest, vectors: Vectors) -> tuple[NDArray[np.float32], int]:
        rows, width = vectors.matrix.shape
        if order.row is not None:
            if order.row >= rows:
                words = f"`query` asks for row {order.row}; the dataset has the rows 0 to {rows - 1}."
                raise Refused(422, "row_not_found", words, "query")
            return _directed(np.asarray(vectors.matrix[order.row]), "query"), 0
        if order.query is not None:
            made, tokens = await self._embedded(order.query)
            return _directed(made, "query"), tokens
        given = np.asarray(order.vector, dtype=np.float64)
        if len(given) != width:
            words = f"`vector` has {len(given)} numbers; the vectors of this dataset have {width}."
            raise Refused(422, "wrong_dimensions", words, "vector")
        return _directed(given / max(np.abs(given).max(), np.finfo(np.float64).tiny), "vector"), 0


def _directed(vector: NDArray[Any], param: str) -> NDArray[np.float32]:
    made: NDArray[np.float32] = vector_index.unit(np.asarray(vector)[None])[0]
    if not made.any():
        raise Refused(422, "no_direction", f"`{param}` has a vector of length zero, which is near to nothing.", param)
    return made


def _labelled(vectors: Vectors, label: str) -> NDArray[np.int64]:
    """Numbers of the rows with this label."""
    if vectors.labels is None:
        words = "The dataset was embedded before labels were kept beside its vectors; embed it again to filter by them."
        raise Refused(422, "no_labels", words, "filter.label")
    if label not in vectors.names:
        known = ", ".join(sorted(vectors.names)[:_CLASSES_NAMED]) or "none"
        words = f"No row has the label {label[:100]!r}; labels of this dataset: {known}."
        raise Refused(422, "unknown_label", words, "filter.label")
    return np.flatnonzero(vectors.labels == vectors.names.index(label))


def _previews(order: PreviewRequest) -> list[dict[str, Any] | None]:
    if order.modality not in MODALITIES:
        raise Refused(422, "unknown_modality", f"There is no modality {order.modality!r}.", "modality")
    return [_preview(order.modality, item.contents(number)) for number, item in enumerate(order.items)]


def _preview(modality: str, content: dict[str, str | bytes]) -> dict[str, Any] | None:
    raw = {name: value.encode() if isinstance(value, str) else value for name, value in content.items()}
    try:
        return MODALITIES[modality].examine(raw).preview()
    except (DataError, KeyError) as error:
        log.warning("preview_failed", modality=modality, error=repr(error))
        return None
