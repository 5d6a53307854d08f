"""`POST /v1/embeddings` over real sockets: the API, the inference role, the official client."""

from __future__ import annotations

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from sqlalchemy import select

from app.idempotency import KeptReply
from app.platform import read_scope
from ssl_core.data import tokenizer
from ssl_core.inference import load
from tests.app import registered
from tests.app.serving import Serving, serving
from tests.inference_role import start_role, stop_role
from tests.model_folders import picture, texts
from tests.ssl_core import datasets

__all__ = ["serving"]


def data_uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def vectors(serving: Serving, model: str, input: Any, **fields: Any) -> np.ndarray[Any, Any]:
    body = {"model": serving.models[model], "input": input, **fields}
    reply = serving.client.post("/v1/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    return np.array([row["embedding"] for row in reply.json()["data"]], dtype=np.float32)


def test_the_official_client_gets_vectors_with_its_default_base64(serving: Serving) -> None:
    documents = texts(7)
    reply = serving.openai.embeddings.create(model=serving.models["text"], input=documents)
    local = load(serving.folders["text"])
    np.testing.assert_allclose([row.embedding for row in reply.data], local.embed(documents), atol=1e-5)
    assert [row.index for row in reply.data] == list(range(7)) and reply.model == serving.models["text"]
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == sum(local.token_counts(documents))


def test_floats_and_base64_are_the_same_numbers(serving: Serving) -> None:
    body = {"model": serving.models["text"], "input": "bread oven"}
    plain = serving.client.post("/v1/embeddings", json={**body, "encoding_format": "float"}).json()
    packed = serving.client.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), np.float32(plain["data"][0]["embedding"]))


def test_vectors_are_not_kept_for_an_idempotency_key(serving: Serving) -> None:
    headers = {"Idempotency-Key": "vectors-of-today"}
    for input in ("bread oven", "salt"):  # computed anew each time, for another input too
        body = {"model": serving.models["text"], "input": input}
        assert serving.client.post("/v1/embeddings", json=body, headers=headers).status_code == 200
    with read_scope(serving.platform) as session:
        assert session.scalars(select(KeptReply).where(KeptReply.key == "vectors-of-today")).all() == []


def test_the_reply_has_the_fields_of_the_openai_api_and_no_other(serving: Serving) -> None:
    reply = serving.client.post("/v1/embeddings", json={"model": serving.models["text"], "input": "bread"}).json()
    assert set(reply) == {"object", "data", "model", "usage"} and reply["object"] == "list"
    assert set(reply["data"][0]) == {"object", "index", "embedding"} and reply["data"][0]["object"] == "embedding"
    assert set(reply["usage"]) == {"prompt_tokens", "total_tokens"}


def test_every_spelling_of_a_text_gives_the_same_vector(serving: Serving) -> None:
    document = "bread oven salt"
    ids = tokenizer.encode(tokenizer.load(serving.folders["text"] / "tokenizer.json"), [document])[0]
    expected = vectors(serving, "text", document)
    for spelling in ([document], {"text": document}, [{"text": document}], ids, [ids]):
        np.testing.assert_array_equal(vectors(serving, "text", spelling), expected)


def test_one_request_may_mix_spellings(serving: Serving) -> None:
    row = {"dataset": serving.datasets["text"], "row": 0}
    mixed = vectors(serving, "text", ["bread oven", {"text": "wind"}, [10, 11], row])
    assert mixed.shape == (4, 32) and len({tuple(row) for row in mixed}) == 4


@pytest.mark.parametrize(("format", "kind"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp")])
def test_a_picture_comes_as_a_data_uri(serving: Serving, format: str, kind: str) -> None:
    content = picture(3, format=format)
    local = load(serving.folders["image"]).embed([content])
    np.testing.assert_allclose(vectors(serving, "image", {"image": data_uri(content, kind)}), local, atol=1e-5)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_row_of_a_dataset_is_embedded_as_its_content(serving: Serving, modality: str) -> None:
    table = parquet.read_table(serving.dataset_folders[modality] / "rows-00000.parquet")
    rows = [0, 41, len(table) - 1]
    items = [table.column(modality)[row].as_py() for row in rows]
    asked = [{"dataset": serving.datasets[modality], "row": row} for row in rows]
    local = load(serving.folders[modality]).embed(items)
    np.testing.assert_allclose(vectors(serving, modality, asked), local, atol=1e-5)


def test_dimensions_shorten_the_vector_to_unit_length(serving: Serving) -> None:
    whole = vectors(serving, "text", "bread oven")
    reply = serving.openai.embeddings.create(model=serving.models["text"], input="bread oven", dimensions=8)
    np.testing.assert_allclose(reply.data[0].embedding, (whole[:, :8] / np.linalg.norm(whole[:, :8]))[0], atol=1e-6)


def test_pooling_is_the_callers_choice(serving: Serving) -> None:
    local = load(serving.folders["text"])
    for pooling in ("mean", "cls", "max"):
        found = vectors(serving, "text", "bread oven salt", pooling=pooling)
        np.testing.assert_allclose(found, local.embed(["bread oven salt"], pooling), atol=1e-5)


def test_eight_bits_are_the_callers_choice_and_the_reply_says_how_near_they_are(serving: Serving) -> None:
    documents = texts(12, seed=8)
    exact = vectors(serving, "text", documents)
    body = {"model": serving.models["text"], "input": documents, "precision": "int8"}
    reply = serving.client.post("/v1/embeddings", json=body)
    coarse = np.array([one["embedding"] for one in reply.json()["data"]])
    cosines = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert cosines.min() > 0.99 and not np.array_equal(exact, coarse.astype(np.float32))
    name, cosine, rows = reply.headers["groundwork-precision"].split("; ")
    assert name == "int8" and float(cosine.removeprefix("cosine=")) > 0.99 and int(rows.removeprefix("rows=")) >= 12
    assert set(reply.json()) == {"object", "data", "model", "usage"}
    plain = serving.client.post("/v1/embeddings", json={**body, "precision": "fp32"})
    assert "groundwork-precision" not in plain.headers


def test_callers_at_once_each_have_their_own_error(serving: Serving) -> None:
    model, good = serving.models["text"], texts(20, seed=6)
    inputs = [*good, [1, 10**6], "bread", {"image": data_uri(picture())}, ["oven", [10**6]]]
    with ThreadPoolExecutor(24) as threads:
        ask = lambda given: serving.client.post("/v1/embeddings", json={"model": model, "input": given})  # noqa: E731
        replies = list(threads.map(ask, inputs))
    assert [reply.status_code for reply in replies] == [200] * 20 + [422, 200, 422, 422]
    told = [reply.json()["error"]["param"] for reply in (replies[20], replies[22], replies[23])]
    assert told == ["input", "input", "input[1]"]


def test_a_fine_tuned_model_embeds_too(serving: Serving) -> None:
    local = load(serving.folders["topics"]).embed(["bread"])
    np.testing.assert_allclose(vectors(serving, "topics", "bread"), local, atol=1e-5)


def test_2048_inputs_are_taken_and_one_more_is_not(serving: Serving) -> None:
    assert vectors(serving, "text", ["bread oven"] * 2048).shape == (2048, 32)
    refused = serving.refused("/v1/embeddings", model=serving.models["text"], input=["bread"] * 2049)
    assert refused == (422, "too_many_inputs", "input")


def test_a_large_body_is_taken_and_a_larger_one_is_not(serving: Serving) -> None:
    large = ["bread " * 1000] * 1000  # 6 MB; other routes stop at 1 MB
    assert vectors(serving, "text", large).shape == (1000, 32)
    body = json.dumps({"model": serving.models["text"], "input": "x" * (33 * 2**20)}).encode()
    reply = serving.client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


BAD = [
    ({"input": ""}, (422, "empty_input", "input")),
    ({"input": []}, (422, "empty_input", "input")),
    ({"input": ["a", " \n"]}, (422, "empty_input", "input[1]")),
    ({"input": ["a", []]}, (422, "empty_input", "input[1]")),
    ({"input": None}, (422, "invalid_input", "input")),
    ({"input": 7}, (422, "invalid_input", "input")),
    ({"input": ["a", 1.5]}, (422, "invalid_input", "input[1]")),
    ({"input": ["a", True]}, (422, "invalid_input", "input[1]")),
    ({"input": [1, -2]}, (422, "invalid_input", "input")),
    ({"input": ["a", [1, "b"]]}, (422, "invalid_input", "input[1]")),
    ({"input": [1, 10**6]}, (422, "invalid_input", "input")),
    ({"input": [{"text": "a", "image": "b"}]}, (422, "invalid_input", "input[0]")),
    ({"input": [{"words": "a"}]}, (422, "invalid_input", "input[0]")),
    ({"input": {"image": "http://example.org/a.png"}}, (422, "invalid_input", "input")),
    ({"input": {"image": "data:image/svg+xml;base64,AAAA"}}, (422, "invalid_input", "input")),
    ({"input": {"image": "data:image/png;base64,"}}, (422, "empty_input", "input")),
    ({"input": {"image": "data:image/png;base64,AAAA"}}, (422, "wrong_modality", "input")),
    ({"input": ["x" * 1_000_001]}, (422, "input_too_long", "input[0]")),
    ({"input": "a", "dimensions": 0}, (422, "out_of_range", "dimensions")),
    ({"input": "a", "dimensions": 33}, (422, "out_of_range", "dimensions")),
    ({"input": "a", "dimensions": 8.0}, (422, "type_error", "dimensions")),
    ({"input": "a", "encoding_format": "hex"}, (422, "invalid_value", "encoding_format")),
    ({"input": "a", "pooling": "sum"}, (422, "invalid_value", "pooling")),
    ({"input": "a", "temperature": 1}, (422, "unknown_field", "temperature")),
    ({}, (422, "missing_field", "input")),
]


@pytest.mark.parametrize(("body", "expected"), BAD)
def test_bad_input_names_its_field(serving: Serving, body: dict[str, Any], expected: tuple[int, str, str]) -> None:
    assert serving.refused("/v1/embeddings", model=serving.models["text"], **body) == expected


@pytest.mark.parametrize("content", [b"GIF89a not one of ours", picture()[:70], b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_an_undecodable_picture_is_named(serving: Serving, content: bytes) -> None:
    items = [{"image": data_uri(picture())}, {"image": data_uri(content)}]
    status, _, param = serving.refused("/v1/embeddings", model=serving.models["image"], input=items)
    assert (status, param) == (422, "input[1]")


def test_broken_base64_is_named(serving: Serving) -> None:
    bad = {"image": "data:image/png;base64,@@@@"}
    refused = serving.refused("/v1/embeddings", model=serving.models["image"], input=[bad])
    assert refused == (422, "invalid_input", "input[0]")


def test_a_pooling_that_the_model_lacks_is_refused(serving: Serving) -> None:
    body = {"model": serving.models["image"], "input": {"image": data_uri(picture())}, "pooling": "cls"}
    assert serving.refused("/v1/embeddings", **body) == (422, "unsupported_pooling", "pooling")


@pytest.mark.parametrize(
    ("dataset", "row", "expected"),
    [
        ("text", 90, (422, "row_not_found", "input[0]")),
        ("text", -1, (422, "invalid_input", "input[0]")),
        ("image", 0, (422, "wrong_modality", "input[0]")),
        ("foreign", 0, (422, "not_found", "input[0]")),
        ("missing", 0, (422, "not_found", "input[0]")),
        ("pending", 0, (409, "not_ready", "input[0]")),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    serving: Serving, dataset: str, row: int, expected: tuple[int, str, str]
) -> None:
    asked = [{"dataset": serving.datasets.get(dataset, "ds_none"), "row": row}]
    assert serving.refused("/v1/embeddings", model=serving.models["text"], input=asked) == expected


def test_a_foreign_model_is_a_missing_one(serving: Serving) -> None:
    missing = "mdl_" + "0" * 26
    found = []
    for model in (serving.models["foreign"], missing):
        reply = serving.client.post("/v1/embeddings", json={"model": model, "input": "a"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (404, "model")
        found.append(reply.text.replace(model, missing))
    assert found[0] == found[1]


def test_the_official_client_raises_errors_with_code_and_param(serving: Serving) -> None:
    client = serving.openai
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="mdl_none", input="a")
    assert (missing.value.code, missing.value.param) == ("not_found", "model")
    with pytest.raises(openai.UnprocessableEntityError) as empty:
        client.embeddings.create(model=serving.models["text"], input=["a", ""])
    assert (empty.value.code, empty.value.param) == ("empty_input", "input[1]")
    with pytest.raises(openai.AuthenticationError) as stranger:
        client.with_options(api_key="gw_x").embeddings.create(model="m", input="a")
    assert stranger.value.code == "invalid_api_key"


def test_callers_at_once_each_get_their_own_vectors(serving: Serving) -> None:
    documents = texts(64, seed=4)
    expected = load(serving.folders["text"]).embed(documents)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda text: vectors(serving, "text", text)[0], documents))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_deleted_model_no_longer_answers(serving: Serving) -> None:
    from tests.app import registered

    made = registered.model(serving.platform, serving.project_id, serving.folders["text"])
    ask = {"model": made, "input": "bread"}
    assert serving.client.post("/v1/embeddings", json=ask).status_code == 200
    serving.client.delete(f"/v1/models/{made}")
    assert serving.refused("/v1/embeddings", **ask) == (404, "not_found", "model")


def test_a_lost_inference_role_is_503_until_it_is_back(serving: Serving, tmp_path: Path) -> None:
    ask = {"model": serving.models["text"], "input": "bread"}
    assert serving.client.post("/v1/embeddings", json=ask).status_code == 200
    stop_role(serving.role)
    reply = serving.client.post("/v1/embeddings", json=ask)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "inference_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    serving.role = start_role(serving.url, serving.inference_url, tmp_path)
    assert serving.client.post("/v1/embeddings", json=ask).status_code == 200


def test_a_slow_model_holds_up_nothing_else(serving: Serving) -> None:
    heavy = {"model": serving.models["text"], "input": ["bread oven salt " * 30] * 2048}
    busy = threading.Thread(target=lambda: serving.client.post("/v1/embeddings", json=heavy, timeout=300))
    busy.start()
    waits = []
    while busy.is_alive():
        began = time.monotonic()
        assert httpx2.get(f"{serving.url}/healthz", timeout=30).status_code == 200
        waits.append(time.monotonic() - began)
        time.sleep(0.02)
    busy.join()
    assert waits and sorted(waits)[int(0.9 * len(waits))] < 0.5


def test_rows_that_are_large_together_are_refused_before_they_are_all_read(serving: Serving, tmp_path: Path) -> None:
    words = ("salt bread oven " * 2**16, "short")
    columns = {"text": [*words], "label": pa.array([None, None], pa.string()), "source": ["a.txt:1", "a.txt:2"]}
    folder = datasets.write_dataset(tmp_path / "large", columns, {"modality": "text", "characters": 2**20})
    large = registered.dataset(serving.platform, serving.project_id, folder)
    asked = [{"dataset": large, "row": 0}] * 2048
    told = serving.refused("/v1/embeddings", model=serving.models["text"], input=asked)
    assert told == (413, "input_too_large", "input[32]")
    few = [{"dataset": large, "row": 1}, {"dataset": large, "row": 0}, {"dataset": large, "row": 1}]
    data = serving.openai.embeddings.create(model=serving.models["text"], input=few).data
    assert data[0].embedding == data[2].embedding != data[1].embedding
