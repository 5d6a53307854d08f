"""`POST /v1/datasets/{id}/search` over HTTP: API and inference role as two processes, vectors as jobs leave them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from numpy.typing import NDArray

from app.datasets.service import StoredFile
from app.search.rows import read_rows
from ssl_core import vector_index
from ssl_core.inference import load
from tests.app import registered
from tests.app.embedded import embedded, vectors_folder
from tests.app.serving import Serving, serving
from tests.inference_role import start_role, stop_role
from tests.model_folders import picture
from tests.ssl_core import datasets

__all__ = ["serving"]


@pytest.fixture(scope="module")
def known(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    """Vectors by modality, of the datasets of that name, embedded by the models of that name."""
    made = {}
    for name in ("text", "image"):
        table = parquet.read_table(serving.dataset_folders[name] / "rows-00000.parquet")
        made[name] = load(serving.folders[name]).embed(table.column(name).to_pylist())
        folder = vectors_folder(tmp_path_factory.mktemp(name), made[name], table.column("label").to_pylist())
        embed(serving, name, name, folder)
    return made


def embed(serving: Serving, dataset: str, model: str, folder: Path | None, pooling: str = "mean") -> str:
    refs = serving.datasets[dataset], serving.models[model]
    return embedded(serving.platform, serving.project_id, refs, folder, pooling)


def ask(serving: Serving, dataset: str, **body: Any) -> dict[str, Any]:
    reply = serving.client.post(f"/v1/datasets/{serving.datasets.get(dataset, dataset)}/search", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def refused(serving: Serving, dataset: str, **body: Any) -> tuple[int, str, str | None]:
    return serving.refused(f"/v1/datasets/{serving.datasets.get(dataset, dataset)}/search", **body)


def rows_of(found: dict[str, Any]) -> list[int]:
    return [each["row"] for each in found["data"]]


def nearest(vectors: NDArray[Any], query: NDArray[Any]) -> NDArray[np.float64]:
    whole = vectors.astype(np.float64)
    scores = whole @ query.astype(np.float64) / np.linalg.norm(whole, axis=1) / np.linalg.norm(query)
    return np.asarray(scores)


def test_the_answer_has_the_rows_with_what_is_in_them(
    serving: Serving, known: dict[str, NDArray[np.float32]]
) -> None:
    found = ask(serving, "text", query="bread oven salt", limit=5)
    assert set(found) == {"object", "data", "model", "job", "index", "usage"} and found["object"] == "list"
    assert found["model"] == serving.models["text"] and found["usage"]["total_tokens"] > 0
    table = parquet.read_table(serving.dataset_folders["text"] / "rows-00000.parquet").to_pylist()
    expected = nearest(known["text"], load(serving.folders["text"]).embed(["bread oven salt"])[0])
    assert [each["score"] for each in found["data"]] == pytest.approx(sorted(expected)[::-1][:5], abs=2e-6)
    for each in found["data"]:
        row = table[each["row"]]
        assert each["score"] == pytest.approx(expected[each["row"]], abs=2e-6)
        assert (each["source"], each["label"], each["object"]) == (row["source"], row["label"], "search.result")
        assert each["preview"] == {"text": row["text"][:500]}


def test_a_picture_is_found_and_shown_small(serving: Serving, known: dict[str, NDArray[np.float32]]) -> None:
    uri = "data:image/png;base64," + base64.b64encode(picture(3)).decode()
    found = ask(serving, "image", query={"image": uri}, limit=3)
    expected = nearest(known["image"], load(serving.folders["image"]).embed([picture(3)])[0])
    assert [each["score"] for each in found["data"]] == pytest.approx(sorted(expected)[::-1][:3], abs=2e-6)
    assert all(each["preview"]["image"].startswith("data:image/png;base64,") for each in found["data"])
    plain = ask(serving, "image", query={"image": uri}, limit=3, preview=False)
    assert rows_of(plain) == rows_of(found) and [each["preview"] for each in plain["data"]] == [None] * 3
    assert [each["source"] for each in plain["data"]] == [each["source"] for each in found["data"]]


def test_a_vector_and_a_row_find_what_they_are(serving: Serving, known: dict[str, NDArray[np.float32]]) -> None:
    vector = known["text"][33].tolist()
    by_vector = ask(serving, "text", vector=vector, limit=100)
    by_row = ask(serving, "text", query={"dataset": serving.datasets["text"], "row": 33}, limit=100)
    assert rows_of(by_vector) == rows_of(by_row) and by_vector["data"][0]["row"] == 33
    assert by_vector["data"][0]["score"] == pytest.approx(1) and by_vector["usage"]["total_tokens"] == 0
    large = ask(serving, "text", vector=[each * 1e300 for each in vector], limit=100)
    assert rows_of(large) == rows_of(by_vector), "only the direction counts"


def test_a_filter_counts_rows_of_one_label_only(serving: Serving, known: dict[str, NDArray[np.float32]]) -> None:
    table = parquet.read_table(serving.dataset_folders["text"] / "rows-00000.parquet")
    labels = table.column("label").to_pylist()
    wanted = labels[0]
    found = ask(serving, "text", query="wind", limit=100, filter={"label": wanted})
    assert sorted(rows_of(found)) == [at for at, label in enumerate(labels) if label == wanted][:100]
    assert refused(serving, "text", query="wind", filter={"label": "astronomy"}) == (
        422, "unknown_label", "filter.label",
    )  # fmt: skip


BAD = [
    ({}, (422, "invalid_query", "query")),
    ({"query": "a", "vector": [1.0]}, (422, "invalid_query", "query")),
    ({"query": ""}, (422, "empty_input", "query")),
    ({"query": 7}, (422, "invalid_input", "query")),
    ({"query": ["a", "b"]}, (422, "invalid_input", "query")),
    ({"query": {"words": "a"}}, (422, "invalid_input", "query")),
    ({"query": {"image": "data:image/png;base64,AAAA"}}, (422, "wrong_modality", "query")),
    ({"query": {"protein": "MKV"}, "limit": 0}, (422, "out_of_range", "limit")),
    ({"query": "a", "limit": 101}, (422, "out_of_range", "limit")),
    ({"query": "a", "limit": 1.5}, (422, "type_error", "limit")),
    ({"query": "a", "limt": 3}, (422, "unknown_field", "limt")),
    ({"query": "a", "filter": {"label": "a", "rows": 3}}, (422, "unknown_field", "filter.rows")),
    ({"query": "a", "model": "mdl_nothing"}, (422, "not_found", "model")),
    ({"vector": []}, (422, "out_of_range", "vector")),
    ({"vector": [1.0] * 31}, (422, "wrong_dimensions", "vector")),
    ({"vector": [0.0] * 32}, (422, "no_direction", "vector")),
    ({"vector": ["a"] * 32}, (422, "type_error", "vector.0")),
    ({"query": {"dataset": "ds_nothing", "row": 0}}, (422, "not_found", "query")),
]


@pytest.mark.parametrize(("body", "expected"), BAD, ids=lambda each: json.dumps(each)[:40])
def test_what_cannot_be_meant_is_refused_at_its_field(
    serving: Serving, known: dict[str, NDArray[np.float32]], body: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    assert refused(serving, "text", **body) == expected


def test_numbers_that_are_none_never_reach_the_search(
    serving: Serving, known: dict[str, NDArray[np.float32]]
) -> None:
    for bad in ("NaN", "Infinity", "1e999"):
        body = f'{{"vector": [{", ".join([bad] * 32)}]}}'.encode()
        url = f"/v1/datasets/{serving.datasets['text']}/search"
        reply = serving.client.post(url, content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code in (400, 422) and reply.json()["error"]["code"], reply.text


def test_a_wrong_length_and_a_row_beyond_the_end_name_both_numbers(
    serving: Serving, known: dict[str, NDArray[np.float32]]
) -> None:
    url, last = f"/v1/datasets/{serving.datasets['text']}/search", len(known["text"]) - 1
    told = serving.client.post(url, json={"vector": [1.0] * 31}).json()["error"]["message"]
    assert "31" in told and "32" in told
    beyond = {"query": {"dataset": serving.datasets["text"], "row": last + 1}}
    error = serving.client.post(url, json=beyond).json()["error"]
    assert (error["code"], error["param"]) == ("row_not_found", "query") and str(last) in error["message"]


def test_a_row_of_another_dataset_is_a_query_and_has_to_fit_the_model(
    serving: Serving, known: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    other = registered.dataset(
        serving.platform, serving.project_id, datasets.text_dataset(tmp_path / "other", seed=5)
    )
    table = parquet.read_table(tmp_path / "other" / "rows-00000.parquet")
    found = ask(serving, "text", query={"dataset": other, "row": 4})
    same = ask(serving, "text", query=table.column("text")[4].as_py())
    assert rows_of(found) == rows_of(same)
    picture_row = {"dataset": serving.datasets["image"], "row": 0}
    assert refused(serving, "text", query=picture_row) == (422, "wrong_modality", "query")


def copied(serving: Serving, tmp_path: Path, name: str = "text") -> str:
    """Another dataset with the same rows, embedded by nobody."""
    return registered.dataset(serving.platform, serving.project_id, serving.dataset_folders[name])


def test_pictures_are_read_as_far_as_there_is_room_and_texts_are_cut(serving: Serving, tmp_path: Path) -> None:
    size = len(picture(0))
    columns = {
        "image": [picture(0), b"x" * (size * 2), picture(0), picture(0)], "text": ["a" * 9000, "b", "c", "d"],
        "label": pa.array([None] * 4, pa.string()), "source": [f"pairs.zip:{at}" for at in range(4)],
    }  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "rows-00000.parquet")
    files = registered.stored_folder(serving.platform, tmp_path, "loose/rows")
    store = serving.platform.store
    found = read_rows(store, [StoredFile(**each) for each in files], ["image", "text"], [3, 0, 1, 2], 2 * size)
    assert {row: "image" in each for row, each in found.items()} == {0: True, 1: False, 2: True, 3: False}
    assert [len(found[row]["text"]) for row in range(4)] == [500, 1, 1, 1] and found[1]["source"] == "pairs.zip:1"


def test_one_model_is_found_behind_many_jobs_of_another(
    serving: Serving, known: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    dataset = copied(serving, tmp_path)
    serving.datasets["crowded"] = dataset
    first = embed(serving, "crowded", "text", vectors_folder(tmp_path / "v", known["text"]))
    for _ in range(210):
        embed(serving, "crowded", "topics", None)
    assert ask(serving, "crowded", query="wind")["job"] == first
    assert ask(serving, "crowded", query="wind", model=serving.models["text"])["job"] == first
    error = serving.client.post(
        f"/v1/datasets/{dataset}/search", json={"query": "wind", "model": serving.models["topics"]}
    ).json()["error"]
    assert error["code"] == "not_embedded" and "wait for job" in error["message"]


def test_a_dataset_without_vectors_says_what_to_post_or_what_to_wait_for(serving: Serving, tmp_path: Path) -> None:
    dataset = copied(serving, tmp_path)
    url = f"/v1/datasets/{dataset}/search"
    first = serving.client.post(url, json={"query": "wind"})
    error = first.json()["error"]
    assert (first.status_code, error["code"], error["param"]) == (409, "not_embedded", "id")
    body = json.loads(error["message"].partition("POST /v1/jobs ")[2].partition("}")[0] + "}")
    assert body == {"type": "embed", "dataset": dataset, "model": "mdl_…"}
    named = serving.client.post(url, json={"query": "wind", "model": serving.models["text"]}).json()["error"]
    assert named["param"] == "model" and serving.models["text"] in named["message"]
    job = embedded(serving.platform, serving.project_id, (dataset, serving.models["text"]), None)
    assert f"wait for job {job}" in serving.client.post(url, json={"query": "wind"}).json()["error"]["message"]
    assert refused(serving, "pending", query="wind") == (409, "not_ready", "id")


def test_the_newest_vectors_are_searched_and_several_models_have_to_be_told_apart(
    serving: Serving, tmp_path: Path
) -> None:
    dataset = copied(serving, tmp_path)
    texts = parquet.read_table(serving.dataset_folders["text"] / "rows-00000.parquet").column("text").to_pylist()
    model = load(serving.folders["text"])

    def left(name: str, pooling: str) -> str:
        made = model.embed(texts, "max" if pooling == "max" else "mean")
        folder = vectors_folder(tmp_path / f"{name}-{pooling}", made)
        return embedded(serving.platform, serving.project_id, (dataset, serving.models[name]), folder, pooling)

    left("text", "mean")
    newest = left("text", "max")
    found = ask(serving, dataset, query=texts[8], limit=1)
    assert (found["job"], found["data"][0]["row"]) == (newest, 8)
    assert found["data"][0]["score"] == pytest.approx(1, abs=1e-5), "the query is pooled as the rows were"
    other = left("topics", "mean")
    reply = serving.client.post(f"/v1/datasets/{dataset}/search", json={"query": "wind"}).json()["error"]
    assert (reply["code"], reply["param"]) == ("model_required", "model")
    assert serving.models["text"] in reply["message"] and serving.models["topics"] in reply["message"]
    assert ask(serving, dataset, query="wind", model=serving.models["topics"])["job"] == other


def test_a_deleted_model_leaves_vectors_that_are_searched_no_more(serving: Serving, tmp_path: Path) -> None:
    dataset = copied(serving, tmp_path)
    model = registered.model(serving.platform, serving.project_id, serving.folders["text"])
    folder = vectors_folder(tmp_path / "made", np.eye(90, 32, dtype=np.float32) + 0.1)
    embedded(serving.platform, serving.project_id, (dataset, model), folder)
    assert len(ask(serving, dataset, vector=[1.0] * 32)["data"]) == 10
    assert serving.client.delete(f"/v1/models/{model}").status_code == 200
    assert refused(serving, dataset, vector=[1.0] * 32) == (409, "not_embedded", "id")


def test_another_project_sees_nothing_of_it(serving: Serving, known: dict[str, NDArray[np.float32]]) -> None:
    with httpx2.Client(base_url=serving.url, headers={"Authorization": f"Bearer {serving.other_key}"}) as stranger:
        mine, missing = serving.datasets["text"], serving.datasets["text"][:-8] + "00000000"
        replies = [stranger.post(f"/v1/datasets/{id}/search", json={"query": "wind"}) for id in (mine, missing)]
        assert [reply.status_code for reply in replies] == [404, 404]
        assert replies[0].content.replace(mine.encode(), missing.encode()) == replies[1].content
        own = f"/v1/datasets/{serving.datasets['foreign']}/search"
        for body in ({"model": serving.models["text"]}, {"query": {"dataset": mine, "row": 0}}):
            error = stranger.post(own, json={"query": "wind", **body}).json()["error"]
            assert error["code"] in ("not_found", "not_embedded") and error["param"] in ("model", "id"), error


def test_the_door_of_vectors_opens_to_the_worker_token_alone(
    serving: Serving, known: dict[str, NDArray[np.float32]]
) -> None:
    job = ask(serving, "text", query="wind")["job"]
    url = f"/internal/v1/vectors/{job}/embeddings.parquet"
    assert serving.client.get(url).status_code == 401
    token = {"Authorization": "Bearer worker-token-of-the-tests"}
    with httpx2.Client(base_url=serving.url, headers=token) as role:
        assert role.get(url).content[:4] == b"PAR1"
        for wrong in (f"/internal/v1/vectors/{job}/index.faiss", "/internal/v1/vectors/job_no/embeddings.parquet"):
            assert role.get(wrong).status_code == 404


def test_many_at_once_get_the_answers_they_get_alone(
    serving: Serving, known: dict[str, NDArray[np.float32]]
) -> None:
    asked = [known["text"][at].tolist() for at in range(24)]
    alone = [rows_of(ask(serving, "text", vector=vector, preview=False)) for vector in asked]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda vector: rows_of(ask(serving, "text", vector=vector, preview=False)), asked))
    assert together == alone and [rows[0] for rows in alone] == list(range(24))


@pytest.fixture(scope="module")
def many(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, NDArray[np.float32]]:
    """A dataset of 60,000 rows whose vectors lie in clusters, with the index that the engine makes of them."""
    folder, random = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    middle = random.standard_normal((400, 32))
    vectors = np.float32(middle[random.integers(0, 400, 60_000)] + 0.7 * random.standard_normal((60_000, 32)))
    columns = {"text": [f"row {at}" for at in range(60_000)], "label": [None] * 60_000, "source": ["a:1"] * 60_000}
    strings = {name: pa.array(each, pa.string()) for name, each in columns.items()}
    rows = datasets.write_dataset(folder / "rows", strings, {"modality": "text"})
    dataset = registered.dataset(serving.platform, serving.project_id, rows)
    made = vectors_folder(folder / "made", vectors)
    vector_index.build(made / "embeddings.parquet", made, lambda done, total: None)
    embedded(serving.platform, serving.project_id, (dataset, serving.models["text"]), made)
    return dataset, vectors


@pytest.mark.slow
def test_the_index_of_many_rows_finds_what_it_says(
    serving: Serving, many: tuple[str, NDArray[np.float32]]
) -> None:
    dataset, vectors = many
    random, hits = np.random.default_rng(1), 0
    for at in random.integers(0, 60_000, 40):
        query = (vectors[at] + 0.3 * random.standard_normal(32)).tolist()
        by_index = ask(serving, dataset, vector=query, preview=False)
        exact = ask(serving, dataset, vector=query, preview=False, exact=True)
        expected = np.argsort(-nearest(vectors, np.array(query)))[:10]
        assert rows_of(exact) == expected.tolist()
        assert (exact["index"]["kind"], by_index["index"]["kind"]) == ("exact", "approximate")
        scores = {each["row"]: each["score"] for each in exact["data"]}
        assert all(each["score"] == scores.get(each["row"], each["score"]) for each in by_index["data"])
        hits += len(set(rows_of(by_index)) & set(rows_of(exact)))
    told = by_index["index"]["recall"]
    assert told >= 0.95 and hits / 400 >= 0.95, (told, hits / 400)
    assert by_index["index"]["rows"] == 60_000


@pytest.fixture
def restarted(serving: Serving) -> Iterator[Any]:
    """Starts the inference role again with other settings; at last with the usual ones."""

    def again(**settings: Any) -> None:
        stop_role(serving.role)
        serving.role = start_role(serving.url, serving.inference_url, serving.folder, **settings)

    yield again
    again()


def test_a_role_that_starts_again_has_the_vectors_still(
    serving: Serving, tmp_path: Path, restarted: Any
) -> None:
    dataset = copied(serving, tmp_path)
    vectors = np.random.default_rng(0).standard_normal((90, 32)).astype(np.float32)
    folder = vectors_folder(tmp_path / "made", vectors)
    job = embedded(serving.platform, serving.project_id, (dataset, serving.models["text"]), folder)
    before = ask(serving, dataset, vector=vectors[3].tolist())
    restarted()
    serving.platform.store.delete(f"jobs/{job}/1/made/embeddings.parquet")
    assert ask(serving, dataset, vector=vectors[3].tolist()) == before, "nothing was fetched"


def test_vectors_that_do_not_fit_are_refused_and_those_that_do_take_turns(
    serving: Serving, known: dict[str, NDArray[np.float32]], tmp_path: Path, restarted: Any
) -> None:
    restarted(search_cache_bytes=20_000, data_dir=tmp_path)
    wide = registered.dataset(serving.platform, serving.project_id, serving.dataset_folders["text"])
    folder = vectors_folder(tmp_path / "wide", np.random.default_rng(0).standard_normal((90, 500)))
    embedded(serving.platform, serving.project_id, (wide, serving.models["text"]), folder)
    assert refused(serving, wide, vector=[1.0] * 500) == (422, "vectors_too_large", None)
    for _ in range(2):
        for name in ("text", "image"):
            vector = known[name][5].tolist()
            assert ask(serving, name, vector=vector)["data"][0]["row"] == 5
    held = httpx2.get(f"{serving.inference_url}/metrics").text
    (line,) = [each for each in held.splitlines() if each.startswith("groundwork_inference_vector_bytes ")]
    assert 0 < float(line.split()[1]) <= 20_000


def test_without_the_inference_role_it_is_503_until_it_is_back(
    serving: Serving, known: dict[str, NDArray[np.float32]], restarted: Any
) -> None:
    stop_role(serving.role)
    reply = serving.client.post(f"/v1/datasets/{serving.datasets['text']}/search", json={"query": "wind"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "inference_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    restarted()
    assert len(ask(serving, "text", query="wind")["data"]) == 10
