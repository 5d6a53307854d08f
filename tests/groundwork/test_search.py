"""Datasets embedded by jobs and searched over real HTTP, of every modality: API, worker, engine and inference role."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
import pyarrow.parquet as parquet
import pytest

from tests.groundwork.interchange import dataset, ended
from tests.ssl_core.tones import sound, tone
from tests.ssl_core.uploads import picture, zipped

# Five pretrainings over HTTP: tests/app/test_search.py is in the gate.
pytestmark = [pytest.mark.slow, pytest.mark.pages]
SMALL = {"budget": {"steps": 3}, "batch_size": 8}
ROWS = 24
WORDS = [
    "bread", "oven", "salt", "flour", "butter", "sugar", "wind", "harbour", "mast", "rope", "tide", "anchor", "rose",
    "soil", "spade", "seed", "hedge",
]  # fmt: skip


def said(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=9))


def about(seed: int) -> str:
    """A text of one of thirty topics, of two words each, with a word of another."""
    random_, topic = random.Random(seed), seed % 30
    return " ".join([*random_.choices([WORDS[topic % 17], WORDS[topic % 13 + 3]], k=8), random_.choice(WORDS)])


def chain(seed: int) -> str:
    return "".join(random.Random(seed).choices("ACDEFGHIKLMNPQRSTVWY", k=40))


def shown(seed: int) -> bytes:
    return picture(seed, size=(32, 32))


def heard(seed: int) -> bytes:
    return sound(tone(200 + 25 * seed, seed=seed))


def uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def texts_file() -> bytes:
    return "\n".join(json.dumps({"text": said(at), "label": "ab"[at % 2]}) for at in range(ROWS)).encode()


def pairs_file() -> bytes:
    told = [json.dumps({"image": f"{at:02d}.png", "caption": said(at)}) for at in range(ROWS)]
    return zipped({"captions.jsonl": "\n".join(told).encode(), **{f"{at:02d}.png": shown(at) for at in range(ROWS)}})


@dataclass(frozen=True)
class Kind:
    """How a modality is uploaded, pretrained and asked."""

    file: str
    content: Callable[[], bytes]
    objective: str
    query: Callable[[int], Any]
    preview: str
    source: str
    """Of row 7."""
    begins: str = "data:image/png;base64,"
    """Row 7's preview."""


KINDS = {
    "text": Kind("rows.jsonl", texts_file, "span_contrast", said, "text", "rows.jsonl:8", said(7)),
    "image": Kind(
        "pictures.zip", lambda: zipped({f"{at:02d}.png": shown(at) for at in range(ROWS)}), "simclr",
        lambda at: {"image": uri("image/png", shown(at))}, "image", "07.png:8",
    ),
    "audio": Kind(
        "sounds.zip", lambda: zipped({f"{at:02d}.wav": heard(at) for at in range(ROWS)}), "simclr",
        lambda at: {"audio": uri("audio/wav", heard(at))}, "audio", "07.wav:8",
    ),
    "protein": Kind(
        "chains.fasta", lambda: "".join(f">c{at}\n{chain(at)}\n" for at in range(ROWS)).encode(), "span_contrast",
        lambda at: {"protein": chain(at)}, "protein", "chains.fasta:8", chain(7),
    ),
    "image_text": Kind(
        "pairs.zip", pairs_file, "clip", lambda at: {"image": uri("image/png", shown(at))}, "image", "captions.jsonl:8",
    ),
}  # fmt: skip


def run(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    reply = client.post("/v1/jobs", json=body)
    assert reply.status_code == 201, reply.text
    job = ended(client, reply.json())
    assert job["status"] == "succeeded", job["error"]
    return job


def vectors(client: httpx2.Client, job: dict[str, Any]) -> np.ndarray[Any, Any]:
    """(n, D) float64, as the job left them."""
    body = client.get(f"/v1/jobs/{job['id']}/files/embeddings.parquet").content
    table = parquet.read_table(io.BytesIO(body))
    assert table["row"].to_pylist() == list(range(table.num_rows))
    return np.array(table["embedding"].to_pylist(), dtype=np.float64)


def cosines(matrix: np.ndarray[Any, Any], query: Any) -> np.ndarray[Any, Any]:
    one = np.asarray(query, dtype=np.float64)
    return np.asarray(matrix @ one / np.linalg.norm(matrix, axis=1) / np.linalg.norm(one))


def search(client: httpx2.Client, where: str, **body: Any) -> dict[str, Any]:
    reply = client.post(f"/v1/datasets/{where}/search", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


@dataclass(frozen=True)
class Embedded:
    """A dataset, the model pretrained on it, and the job that embedded it."""

    dataset: str
    model: str
    job: dict[str, Any]


@pytest.fixture(scope="module")
def embedded(client: httpx2.Client) -> Callable[[str], Embedded]:
    """By modality; each is made once."""
    made: dict[str, Embedded] = {}

    def make(modality: str) -> Embedded:
        if modality not in made:
            kind = KINDS[modality]
            where = dataset(client, kind.file, kind.content())
            objective = {"name": kind.objective}
            model = run(client, type="pretrain", dataset=where, objective=objective, **SMALL)["result"]["model"]
            made[modality] = Embedded(where, model, run(client, type="embed", model=model, dataset=where))
        return made[modality]

    return make


@pytest.mark.parametrize("modality", list(KINDS))
def test_a_row_is_found_by_its_own_content_and_the_rest_in_the_order_of_a_float64_reference(
    client: httpx2.Client, embedded: Callable[[str], Embedded], modality: str
) -> None:
    here, kind = embedded(modality), KINDS[modality]
    matrix = vectors(client, here.job)
    asked = kind.query(7)
    found = search(client, here.dataset, query=asked, limit=ROWS)
    told = client.post("/v1/embeddings", json={"model": here.model, "input": [asked]}).json()["data"][0]["embedding"]
    expected = cosines(matrix, told)
    scores = [each["score"] for each in found["data"]]
    first = found["data"][0]
    assert first["row"] == 7 and scores[0] == pytest.approx(1, abs=1e-5)
    assert scores == sorted(scores, reverse=True) and len({each["row"] for each in found["data"]}) == ROWS
    assert scores == pytest.approx([expected[each["row"]] for each in found["data"]], abs=2e-6)
    assert found["index"] == {"kind": "exact", "rows": ROWS, "dimensions": matrix.shape[1], "recall": None}
    assert (found["model"], found["job"]) == (here.model, here.job["id"]) and found["usage"]["total_tokens"] >= 1
    assert first["source"] == kind.source
    assert first["preview"][kind.preview].startswith(kind.begins)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_job_embeds_with_another_pooling_and_to_length_one_where_asked(
    client: httpx2.Client, embedded: Callable[[str], Embedded], modality: str
) -> None:
    here = embedded(modality)
    plain = vectors(client, here.job)
    body = {"type": "embed", "model": here.model, "dataset": here.dataset}
    if modality in ("text", "protein"):
        pooling = "cls"
    else:
        pooling = "max"
        reply = client.post("/v1/jobs", json={**body, "pooling": "cls"})
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["param"]) == (422, "unsupported_pooling", "pooling")
    unit = run(client, **body, pooling=pooling, normalize=True)
    found = vectors(client, unit)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(ROWS), abs=1e-6)
    assert plain.shape == found.shape and not np.allclose(np.linalg.norm(plain, axis=1), 1)
    asked = [KINDS[modality].query(at) for at in range(3)]
    sent = {"model": here.model, "input": asked, "pooling": pooling}
    told = np.array([each["embedding"] for each in client.post("/v1/embeddings", json=sent).json()["data"]])
    assert found[:3] == pytest.approx(told / np.linalg.norm(told, axis=1, keepdims=True), abs=1e-5)
    again = search(client, here.dataset, query=KINDS[modality].query(5), limit=1, model=here.model)
    assert (again["job"], again["data"][0]["row"]) == (unit["id"], 5), "the newest job's pooling is the query's"
    assert again["data"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_a_text_finds_pictures_in_a_dataset_of_pairs_and_in_one_of_pictures_alone(
    client: httpx2.Client, embedded: Callable[[str], Embedded]
) -> None:
    pairs = embedded("image_text")
    alone = dataset(client, "alone.zip", KINDS["image"].content())
    job = run(client, type="embed", model=pairs.model, dataset=alone)
    told = client.post("/v1/embeddings", json={"model": pairs.model, "input": said(3)}).json()["data"][0]["embedding"]
    for where in (alone, pairs.dataset):
        found = search(client, where, query=said(3), limit=4)
        matrix = vectors(client, job if where == alone else {"id": found["job"]})
        best = np.argsort(-cosines(matrix, told), kind="stable")[:4]
        assert [each["row"] for each in found["data"]] == best.tolist()
        assert all(each["preview"]["image"].startswith("data:image/png") for each in found["data"])
    near = search(client, alone, query={"dataset": pairs.dataset, "row": 9}, limit=1)["data"][0]
    assert near["row"] == 9 and near["score"] == pytest.approx(1, abs=1e-5)
    chains = embedded("protein").dataset
    refused = client.post("/v1/jobs", json={"type": "embed", "model": pairs.model, "dataset": chains})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "modality_mismatch")


def test_rows_of_a_label_are_searched_alone(client: httpx2.Client, embedded: Callable[[str], Embedded]) -> None:
    here = embedded("text")
    found = search(client, here.dataset, query=said(6), limit=ROWS, filter={"label": "b"}, model=here.model)
    assert [each["label"] for each in found["data"]] == ["b"] * (ROWS // 2)
    assert {each["row"] for each in found["data"]} == set(range(1, ROWS, 2))
    body = {"query": said(6), "filter": {"label": "c"}, "model": here.model}
    refused = client.post(f"/v1/datasets/{here.dataset}/search", json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (422, "unknown_label", "filter.label")
    assert "a, b" in error["message"]


def test_many_rows_get_an_index_whose_recall_is_told(client: httpx2.Client) -> None:
    texts = [about(at % 900) for at in range(1500)]
    where = dataset(client, "many.txt", "\n".join(texts).encode())
    model = run(client, type="pretrain", dataset=where, objective={"name": "span_contrast"}, **SMALL)["result"]["model"]
    job = run(client, type="embed", model=model, dataset=where, index_from=1000)
    assert job["result"]["files"] == ["embeddings.parquet", "index.faiss", "index.json"], job
    recall = job["result"]["metrics"]["index/recall_at_10"]
    found = search(client, where, query=about(5), limit=10)
    assert found["index"] == {**found["index"], "kind": "approximate", "rows": 1500, "recall": recall}
    rows = [each["row"] for each in found["data"]]
    assert recall >= 0.9 and rows[0] == 5 and 905 in rows[:5], "the same text twice"
    exact = search(client, where, query=about(5), limit=10, exact=True)
    assert (exact["index"]["kind"], exact["index"]["recall"]) == ("exact", None)
    assert exact["data"][0] == found["data"][0]


def test_a_deleted_dataset_is_not_searched_any_more(
    client: httpx2.Client, embedded: Callable[[str], Embedded]
) -> None:
    model = embedded("text").model
    where = dataset(client, "short.txt", b"bread oven\nwind harbour\nrose soil")
    refused = client.post(f"/v1/datasets/{where}/search", json={"query": "bread"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (409, "not_embedded", "id")
    assert f'"type": "embed", "dataset": "{where}"' in error["message"]
    run(client, type="embed", model=model, dataset=where)
    assert len(search(client, where, query="bread oven")["data"]) == 3, "fewer rows than were asked for"
    assert client.delete(f"/v1/datasets/{where}").status_code == 200
    gone = client.post(f"/v1/datasets/{where}/search", json={"query": "bread"})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
