"""`POST /v1/predictions` over real sockets."""

from __future__ import annotations

import base64
from typing import Any

import pyarrow.parquet as parquet
import pytest

from ssl_core.inference import load
from tests.app.serving import Serving, serving
from tests.model_folders import CLASSES, picture, texts

__all__ = ["serving"]


def predictions(serving: Serving, model: str, input: Any) -> list[dict[str, Any]]:
    reply = serving.client.post("/v1/predictions", json={"model": serving.models[model], "input": input})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert set(body) == {"object", "data", "model", "usage"} and body["model"] == serving.models[model]
    found: list[dict[str, Any]] = body["data"]
    return found


def test_a_text_gets_a_label_and_every_probability(serving: Serving) -> None:
    documents = texts(9)
    answers = predictions(serving, "topics", documents)
    local = load(serving.folders["topics"]).predict(documents)
    for at, (answer, expected) in enumerate(zip(answers, local, strict=True)):
        assert (answer["object"], answer["index"], answer["label"]) == ("prediction", at, expected["label"])
        assert set(answer["probabilities"]) == set(CLASSES)
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


def test_a_picture_gets_a_label(serving: Serving) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(picture(2)).decode()}"
    expected = load(serving.folders["digits"]).predict([picture(2)])[0]
    assert predictions(serving, "digits", {"image": uri})[0]["label"] == expected["label"]


def test_a_row_of_a_dataset_gets_a_label(serving: Serving) -> None:
    table = parquet.read_table(serving.dataset_folders["text"] / "rows-00000.parquet")
    expected = load(serving.folders["topics"]).predict([table.column("text")[5].as_py()])[0]
    found = predictions(serving, "topics", [{"dataset": serving.datasets["text"], "row": 5}])[0]
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


def test_usage_counts_the_tokens_that_were_read(serving: Serving) -> None:
    body = {"model": serving.models["topics"], "input": ["bread " * 500]}
    usage = serving.client.post("/v1/predictions", json=body).json()["usage"]
    assert usage == {"prompt_tokens": 24, "total_tokens": 24}


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        ("text", {"input": "a"}, (422, "no_task", "model")),
        ("foreign", {"input": "a"}, (404, "not_found", "model")),
        ("topics", {"input": ["a", ""]}, (422, "empty_input", "input[1]")),
        ("topics", {"input": "a", "dimensions": 4}, (422, "unknown_field", "dimensions")),
        ("digits", {"input": "a"}, (422, "wrong_modality", "input")),
        ("topics", {"input": "a", "sampling": {"top_k": 5}}, (422, "not_for_this_model", "sampling")),
        ("fills", {"input": "a [MASK]", "sampling": {}}, (422, "not_for_this_model", "sampling")),
        ("fills", {"input": ["a [MASK]", "no mask"]}, (422, "no_mask", "input[1]")),
        ("fills", {"input": "[MASK]", "seed": -1}, (422, "out_of_range", "seed")),
        ("writes", {"input": "a", "sampling": {"max_tokens": 0}}, (422, "out_of_range", "sampling.max_tokens")),
        ("writes", {"input": [[5, 99999]]}, (422, "invalid_input", "input[0]")),
    ],
)
def test_bad_requests_name_their_field(
    serving: Serving, model: str, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert serving.refused("/v1/predictions", model=serving.models[model], **body) == expected


def test_a_masked_model_fills_in_and_tells_its_likeliest_tokens(serving: Serving) -> None:
    asked = ["bread [MASK] salt", "[MASK] [MASK]", "rope " * 10 + "[MASK]"]
    completer = load(serving.folders["fills"]).completer
    assert completer is not None
    expected = completer.filled(completer.to_fill(asked))
    answers = predictions(serving, "fills", asked)
    assert [answer["text"] for answer in answers] == [each["text"] for each in expected]
    assert [len(answer["fills"]) for answer in answers] == [1, 2, 1]
    chances = [each["probability"] for each in answers[0]["fills"][0]["candidates"]]
    assert chances == sorted(chances, reverse=True)
    assert len(chances) == 5


def test_a_next_token_model_goes_on_the_same_with_the_same_seed(serving: Serving) -> None:
    body = {"model": serving.models["writes"], "input": ["bread oven", "rope"], "sampling": {"max_tokens": 8}}
    first, again, other = (
        serving.client.post("/v1/predictions", json={**body, "seed": seed}).json()["data"] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert all(answer["tokens"] <= 8 and answer["finish_reason"] in ("stop", "length") for answer in first)
    alone = serving.client.post("/v1/predictions", json={**body, "input": "rope", "seed": 2}).json()["data"][0]
    assert alone["text"] == first[1]["text"], "input n draws with seed + n, whatever stands beside it"
