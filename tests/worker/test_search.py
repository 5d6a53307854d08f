"""The search itself: exact against a float64 reference, ties, filters; the index; what the cache of vectors keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from numpy.typing import NDArray

from ssl_core import vector_index
from tests.inference_role import TOKEN
from tests.worker.vector_door import VectorDoor
from worker import search
from worker.inference_errors import Busy, InferenceError, Refused
from worker.search import Query, approximate, exact
from worker.search_requests import VectorFile
from worker.search_vectors import VectorCache


def drawn(rows: int, width: int = 24, seed: int = 0) -> NDArray[np.float32]:
    return vector_index.unit(np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32))


def reference(matrix: NDArray[np.float32], query: NDArray[np.float32], limit: int) -> list[tuple[int, float]]:
    scores = np.array([float(np.dot(row.astype(np.float64), query.astype(np.float64))) for row in matrix])
    order = sorted(range(len(matrix)), key=lambda at: (-round(scores[at], 12), at))[:limit]
    return [(at, scores[at]) for at in order]


def same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [row for row, _ in found] == [row for row, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-12)


def test_the_nearest_are_those_of_a_float64_reference_whoever_asks_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.search._BLOCK", 256)  # several blocks, the last one short
    matrix = drawn(1000)
    queries = [Query(one, limit) for one, limit in zip(drawn(4, seed=1), (1, 10, 100, 1000), strict=True)]
    for query, found in zip(queries, exact(matrix, None, queries), strict=True):
        same(found, reference(matrix, query.vector, query.limit))


def test_of_rows_that_are_the_same_the_lower_number_comes_first() -> None:
    matrix = np.repeat(drawn(7), 50, axis=0)[np.random.default_rng(0).permutation(350)]
    query = Query(drawn(1, seed=3)[0], 120)
    (found,) = exact(matrix, None, [query])
    same(found, reference(matrix, query.vector, 120))
    alike = [at for at in range(350) if (matrix[at] == matrix[found[0][0]]).all()]
    assert [row for row, _ in found[:50]] == alike, "fifty copies of the nearest, in the order of the rows"


def test_a_million_copies_do_not_drown_a_nearer_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.search._TIES", 64)
    matrix = np.repeat(drawn(1), 5000, axis=0)
    query = drawn(1, seed=5)[0]
    matrix[4321] = query
    (found,) = exact(matrix, None, [Query(query, 3)])
    assert found[0][0] == 4321 and [row for row, _ in found[1:]] == [0, 1]


def test_however_many_rows_are_equally_near_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BLOCK", 500)
    monkeypatch.setattr(search, "_TIES", 40)
    matrix = np.repeat(drawn(1, seed=3), 20_000, axis=0)
    query = drawn(1, seed=5)[0]
    matrix[[700, 15_000, 19_999]] = query
    kept: list[int] = []
    take = search._Pool.take

    def watched(pool: search._Pool, first: int, scores: NDArray[np.float32], limit: int) -> None:
        take(pool, first, scores, limit)
        kept.append(len(pool.rows))

    monkeypatch.setattr(search._Pool, "take", watched)
    (found,) = exact(matrix, None, [Query(query, 6)])
    assert [row for row, _ in found] == [700, 15_000, 19_999, 0, 1, 2]
    assert len(kept) == 40 and max(kept) <= 40


def test_only_rows_that_are_named_are_looked_at() -> None:
    matrix, among = drawn(500), np.arange(3, 500, 7)
    query = Query(drawn(1, seed=2)[0], 20)
    (found,) = exact(matrix, among, [query])
    same([(row // 7, score) for row, score in found], reference(matrix[among], query.vector, 20))
    assert exact(matrix, np.empty(0, np.int64), [query]) == [[]]


def test_fewer_rows_than_wanted_are_all_of_them() -> None:
    matrix = drawn(3)
    (found,) = exact(matrix, None, [Query(matrix[1], 10)])
    assert found[0] == (1, pytest.approx(1)) and len(found) == 3


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_without_a_direction_is_near_to_nothing(bad: float) -> None:
    vectors = np.array([[3, 4], [bad, 0]], dtype=np.float32)
    np.testing.assert_array_equal(vector_index.unit(vectors), np.float32([[0.6, 0.8], [0, 0]]))


def embeddings(folder: Path, vectors: NDArray[np.float32], labels: list[str | None] | None = None) -> Path:
    """An `embeddings.parquet` as a job leaves it; without `labels` as jobs left it before."""
    folder.mkdir(exist_ok=True)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    told = {} if labels is None else {"label": pa.array(labels, pa.string())}
    columns = {"row": pa.array(range(len(vectors))), "source": pa.array(["a:1"] * len(vectors)), **told}
    parquet.write_table(pa.table({**columns, "embedding": flat}), folder / "embeddings.parquet")
    return folder


def clusters(rows: int, width: int, centres: int, spread: float, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    middle = random.standard_normal((centres, width))
    return np.float32(middle[random.integers(0, centres, rows)] + spread * random.standard_normal((rows, width)))


def told(done: int, total: int) -> None:
    assert 0 < done <= total


def test_an_index_finds_what_it_says_on_rows_that_it_was_not_measured_on(tmp_path: Path) -> None:
    vectors = clusters(8000, 32, 60, 0.8)
    folder = embeddings(tmp_path / "made", vectors)
    about = vector_index.build(folder / "embeddings.parquet", folder, told)
    assert about == json.loads((folder / "index.json").read_text()) and about["recall_at_10"] >= 0.95
    matrix = vector_index.unit(vectors)
    asked = vector_index.unit(clusters(200, 32, 60, 0.8)[:200] + 0.1)
    import faiss

    index = faiss.read_index(str(folder / "index.faiss"))
    hits = 0
    for query in asked:
        named = vector_index.candidates(index, query[None], 10, about["probes"])[0]
        hits += len({row for row, _ in reference(matrix, query, 10)} & set(named.tolist()))
    assert hits / 2000 >= about["recall_at_10"] - 0.05


def test_the_same_vectors_give_the_same_index(tmp_path: Path) -> None:
    made = []
    for name in "ab":
        folder = embeddings(tmp_path / name, clusters(3000, 16, 20, 1.0))
        vector_index.build(folder / "embeddings.parquet", folder, told)
        made.append((folder / "index.faiss").read_bytes())
    assert made[0] == made[1]


def test_where_no_index_is_of_use_none_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((3000, 256)).astype(np.float32)
    folder = embeddings(tmp_path / "noise", noise)
    about = vector_index.build(folder / "embeddings.parquet", folder, told)
    assert about["recall_at_10"] < vector_index.LEAST_RECALL
    assert [path.name for path in folder.iterdir()] == ["embeddings.parquet"]


def test_a_recall_among_copies_counts_any_of_them(tmp_path: Path) -> None:
    folder = embeddings(tmp_path / "copies", np.repeat(clusters(100, 16, 20, 1.0), 15, axis=0))
    assert vector_index.build(folder / "embeddings.parquet", folder, told)["recall_at_10"] > 0.99


@pytest.fixture
def door() -> Iterator[VectorDoor]:
    made = VectorDoor()
    yield made
    made.close()


def cache(door: VectorDoor, folder: Path, limit: int = 10**9) -> VectorCache:
    return VectorCache(folder / "vectors", door.url, TOKEN, limit)


def offered(door: VectorDoor, folder: Path) -> list[VectorFile]:
    """The job's files, which the door now serves."""
    door.folders[f"job_{folder.name}"] = folder
    return [
        VectorFile(path=path.name, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    ]


def test_vectors_are_fetched_once_and_found_again_by_the_next_process(door: VectorDoor, tmp_path: Path) -> None:
    vectors = clusters(2000, 16, 10, 0.5)
    folder = embeddings(tmp_path / "made", vectors, [*["x", None] * 999, "y", "x"])
    about = vector_index.build(folder / "embeddings.parquet", folder, told)
    files = offered(door, folder)
    for _ in range(2):
        here = cache(door, tmp_path)
        opened = here.ask("job_made", files).result(5)
        assert here.ask("job_made", files).result(5) is opened
        np.testing.assert_allclose(opened.matrix, vector_index.unit(vectors), atol=1e-7)
        assert (opened.recall, opened.probes) == (about["recall_at_10"], about["probes"])
        assert opened.labels is not None and np.count_nonzero(opened.labels == opened.names.index("x")) == 1000
        query = Query(opened.matrix[11].copy(), 5)
        assert approximate(opened, [query])[0][0] == (11, pytest.approx(1, abs=1e-6))
        here.close()
    assert len(door.asked) == 3, "three files, once each"


def test_vectors_of_a_job_before_labels_were_kept_are_searched_as_well(door: VectorDoor, tmp_path: Path) -> None:
    opened = cache(door, tmp_path).ask("job_old", offered(door, embeddings(tmp_path / "old", drawn(5)))).result(5)
    assert (opened.labels, opened.index, opened.recall) == (None, None, None)


def test_the_least_recently_used_vectors_go_from_the_disk_and_live_on_where_they_are_searched(
    door: VectorDoor, tmp_path: Path
) -> None:
    names = ["a", "b", "c"]
    files = {name: offered(door, embeddings(tmp_path / name, drawn(100, seed=at))) for at, name in enumerate(names)}
    here = cache(door, tmp_path, limit=25_000)  # two of them
    first = here.ask("job_a", files["a"]).result(5)
    for name in ("b", "a", "c"):
        here.ask(f"job_{name}", files[name]).result(5)
    assert len(list((tmp_path / "vectors").iterdir())) == 2 and here.held_bytes <= 25_000
    asked = len(door.asked)
    assert here.ask("job_a", files["a"]).result(5) is first and len(door.asked) == asked, "a was used after b"
    here.ask("job_b", files["b"]).result(5)
    assert len(door.asked) == asked + 1, "b had gone, and came again"
    assert exact(first.matrix, None, [Query(first.matrix[7].copy(), 1)])[0][0][0] == 7


def test_vectors_that_cannot_fit_are_refused_before_they_are_fetched(door: VectorDoor, tmp_path: Path) -> None:
    files = offered(door, embeddings(tmp_path / "large", drawn(1000)))
    with pytest.raises(Refused) as caught:
        cache(door, tmp_path, limit=10_000).ask("job_large", files).result(5)
    assert (caught.value.status, caught.value.code) == (422, "vectors_too_large")
    assert not door.asked and not list((tmp_path / "vectors").iterdir())


def test_a_damaged_transfer_and_a_closed_door_mean_try_again(door: VectorDoor, tmp_path: Path) -> None:
    files = offered(door, embeddings(tmp_path / "made", drawn(10)))
    here = cache(door, tmp_path)
    wrong = [file.model_copy(update={"sha256": "0" * 64}) for file in files]
    for job, listed in (("job_made", wrong), ("job_gone", files)):
        with pytest.raises(Busy):
            here.ask(job, listed).result(5)
    assert not list((tmp_path / "vectors").iterdir())
    assert here.ask("job_made", files).result(5).matrix.shape == (10, 24), "the failures are not remembered"
    door.close()
    with pytest.raises(Busy):
        here.ask("job_made", [files[0].model_copy(update={"sha256": "1" * 64})]).result(5)


def test_a_folder_that_was_damaged_since_is_fetched_anew(door: VectorDoor, tmp_path: Path) -> None:
    files = offered(door, embeddings(tmp_path / "made", drawn(10)))
    cache(door, tmp_path).ask("job_made", files).result(5)
    (folder,) = (tmp_path / "vectors").iterdir()
    (folder / "vectors.npy").write_bytes(b"no array")
    later = cache(door, tmp_path)
    with pytest.raises(InferenceError) as caught:
        later.ask("job_made", files).result(5)
    assert caught.value.code == "invalid_vectors"
    assert later.ask("job_made", files).result(5).matrix.shape == (10, 24)


def test_what_is_no_embeddings_file_is_refused_in_words(door: VectorDoor, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    parquet.write_table(pa.table({"row": [1]}), tmp_path / "odd" / "embeddings.parquet")
    with pytest.raises(InferenceError) as caught:
        cache(door, tmp_path).ask("job_odd", offered(door, tmp_path / "odd")).result(5)
    assert caught.value.code == "invalid_vectors" and caught.value.status == 500
