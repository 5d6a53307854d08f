"""The inference role as a real process."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from ssl_core.inference import load
from tests.inference_role import free_url, start_role, stop_role
from tests.model_folders import CLASSES, image_model, picture, text_model, texts
from tests.otel import Collector
from tests.worker.model_door import TOKEN, ModelDoor


@dataclass
class Role:
    process: subprocess.Popen[bytes]
    client: httpx2.Client
    door: ModelDoor

    def ask(self, path: str, model_id: str, items: list[Any], **fields: Any) -> httpx2.Response:
        digest = self.door.digest(model_id) if model_id in self.door.folders else "0" * 64
        return self.client.post(path, json={"model_id": model_id, "digest": digest, "items": items, **fields})


def start(door: ModelDoor, folder: Path, **settings: Any) -> Role:
    url = free_url()
    process = start_role(door.url, url, folder, **settings)
    client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    return Role(process, client, door)


def stop(role: Role) -> None:
    role.client.close()
    stop_role(role.process)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelDoor]:
    made = ModelDoor()
    folder = tmp_path_factory.mktemp("models")
    made.folders = {
        "mdl_text": text_model(folder / "text"),
        "mdl_topics": text_model(folder / "topics", task=True, seed=1),
        "mdl_image": image_model(folder / "image"),
    }
    yield made
    made.close()


@pytest.fixture(scope="module")
def role(door: ModelDoor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    made = start(door, tmp_path_factory.mktemp("role"))
    yield made
    stop(made)


def vectors(reply: httpx2.Response) -> np.ndarray[Any, Any]:
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    return np.frombuffer(base64.b64decode(answer["vectors"]), "<f4").reshape(-1, answer["dim"])


def refused(reply: httpx2.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return reply.status_code, error["code"], error["param"]


def test_it_gives_the_vectors_of_the_model_folder(role: Role) -> None:
    documents = texts(40)
    local = load(role.door.folders["mdl_text"])
    reply = role.ask("/embed", "mdl_text", [{"text": text} for text in documents])
    np.testing.assert_allclose(vectors(reply), local.embed(documents), atol=1e-5)
    assert reply.json()["tokens"] == sum(local.token_counts(documents))


def test_it_embeds_pictures(role: Role) -> None:
    pictures = [picture(seed) for seed in range(3)]
    reply = role.ask("/embed", "mdl_image", [{"image": base64.b64encode(one).decode()} for one in pictures])
    np.testing.assert_allclose(vectors(reply), load(role.door.folders["mdl_image"]).embed(pictures), atol=1e-5)


def test_it_embeds_tokens(role: Role) -> None:
    assert vectors(role.ask("/embed", "mdl_text", [{"tokens": [10, 11, 12]}])).shape == (1, 32)


def test_dimensions_cut_the_vectors_and_make_them_unit_length(role: Role) -> None:
    whole = vectors(role.ask("/embed", "mdl_text", [{"text": "bread oven"}]))
    cut = vectors(role.ask("/embed", "mdl_text", [{"text": "bread oven"}], dimensions=8))
    np.testing.assert_allclose(cut, whole[:, :8] / np.linalg.norm(whole[:, :8]), atol=1e-6)


def test_it_predicts(role: Role) -> None:
    answers = role.ask("/predict", "mdl_topics", [{"text": text} for text in texts(5)]).json()["answers"]
    assert len(answers) == 5 and all(set(answer["probabilities"]) == set(CLASSES) for answer in answers)


def test_many_callers_at_once_each_get_their_own_answer(role: Role) -> None:
    documents = texts(64, seed=9)
    expected = load(role.door.folders["mdl_text"]).embed(documents)
    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda text: role.ask("/embed", "mdl_text", [{"text": text}]), documents))
    np.testing.assert_allclose(np.concatenate([vectors(reply) for reply in replies]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "path", "items", "fields", "expected"),
    [
        ("mdl_text", "/embed", [{"text": "a"}, {"text": " "}], {}, (422, "empty_input", "input[1]")),
        ("mdl_text", "/embed", [{"image": base64.b64encode(b"x").decode()}], {}, (422, "wrong_modality", "input[0]")),
        ("mdl_image", "/embed", [{"image": "%%%"}], {}, (422, "invalid_input", "input[0]")),
        ("mdl_text", "/embed", [{"text": "a"}], {"pooling": "sum"}, (422, "invalid_request", "pooling")),
        ("mdl_image", "/embed", [{"image": ""}], {"pooling": "cls"}, (422, "unsupported_pooling", "pooling")),
        ("mdl_text", "/embed", [{"text": "a"}], {"dimensions": 33}, (422, "invalid_dimensions", "dimensions")),
        ("mdl_text", "/embed", [{"text": "a", "tokens": [1]}], {}, (422, "invalid_input", "input[0]")),
        ("mdl_text", "/embed", [], {}, (422, "invalid_request", "items")),
        ("mdl_text", "/predict", [{"text": "a"}], {}, (422, "no_task", "model")),
        ("mdl_gone", "/embed", [{"text": "a"}], {}, (404, "not_found", "model")),
    ],
)
def test_bad_requests_name_their_field(
    role: Role, model: str, path: str, items: list[Any], fields: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert refused(role.ask(path, model, items, **fields)) == expected


def test_an_undecodable_picture_is_named(role: Role) -> None:
    items = [{"image": base64.b64encode(one).decode()} for one in (picture(), b"GIF89a not one of ours")]
    status, _, param = refused(role.ask("/embed", "mdl_image", items))
    assert (status, param) == (422, "input[1]")


def many(role: Role, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    whole = [{"digest": role.door.digest(one["model_id"]), **one} for one in requests]
    reply = role.client.post("/embed_many", json={"requests": whole})
    assert reply.status_code == 200, reply.text
    replies: list[dict[str, Any]] = reply.json()["replies"]
    return replies


def test_of_many_requests_each_has_its_own_answer_or_error(role: Role) -> None:
    def text(*words: str, model: str = "mdl_text", **fields: Any) -> dict[str, Any]:
        return {"model_id": model, "items": [{"text": word} for word in words], **fields}

    asked = [
        text("bread oven"), text("salt", " "), text("rope tide", "mast"), text("bread", dimensions=33),
        text("bread", dimensions=8), text("bread", pooling="max"), text("bread", digest="0" * 64), text("oven"),
        text("bread", model="mdl_image"), {"model_id": "mdl_text", "items": [{"text": "a", "tokens": [1]}]},
    ]  # fmt: skip
    found = many(role, *asked)
    assert [one["status"] for one in found] == [200, 422, 200, 422, 200, 200, 404, 200, 422, 422]
    codes = {at: (one["error"]["code"], one["error"]["param"]) for at, one in enumerate(found) if "error" in one}
    assert codes == {
        1: ("empty_input", "input[1]"), 3: ("invalid_dimensions", "dimensions"), 6: ("not_found", "model"),
        8: ("wrong_modality", "input[0]"), 9: ("invalid_input", "input[0]"),
    }  # fmt: skip
    for at in (0, 2, 4, 5, 7):
        alone = role.client.post("/embed", json={"digest": role.door.digest("mdl_text"), **asked[at]})
        np.testing.assert_allclose(floats(found[at]), vectors(alone), atol=1e-5)
        assert found[at]["tokens"] == alone.json()["tokens"]


def floats(answer: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(answer["vectors"]), "<f4").reshape(-1, answer["dim"])


def test_of_many_requests_those_over_the_bound_are_told_to_try_again(door: ModelDoor, tmp_path: Path) -> None:
    role = start(door, tmp_path, inference_requests=3)
    one = {"model_id": "mdl_text", "items": [{"text": "bread"}]}
    found = many(role, *[one] * 5)
    stop(role)
    assert [each["status"] for each in found] == [200, 200, 200, 503, 503]
    assert {each["error"]["code"] for each in found[3:]} == {"inference_busy"}


def test_many_without_the_token_or_with_a_strange_body_are_refused(role: Role) -> None:
    reply = httpx2.post(f"{role.client.base_url}/embed_many", json={"requests": []})
    assert refused(reply) == (401, "invalid_token", None)
    assert refused(role.client.post("/embed_many", json={"requests": []})) == (422, "invalid_request", "requests")


def test_eight_bits_are_near_float32_and_say_so(role: Role) -> None:
    documents = texts(30, seed=3)
    exact = vectors(role.ask("/embed", "mdl_text", [{"text": text} for text in documents]))
    reply = role.ask("/embed", "mdl_text", [{"text": text} for text in documents], precision="int8")
    coarse, told = vectors(reply), reply.json()["precision"]
    cosines = (exact * coarse).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert not np.array_equal(exact, coarse) and cosines.min() > 0.99
    assert told == {"name": "int8", "cosine": pytest.approx(cosines.min(), abs=1e-3), "rows": 30}


def test_eight_bits_of_a_picture_model_are_refused(role: Role) -> None:
    items = [{"image": base64.b64encode(picture()).decode()}]
    found = refused(role.ask("/embed", "mdl_image", items, precision="int8"))
    assert found == (422, "precision_unsupported", "precision")


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Basic " + TOKEN])
def test_without_the_worker_token_it_answers_401(role: Role, header: str) -> None:
    reply = httpx2.post(f"{role.client.base_url}/embed", json={}, headers={"Authorization": header})
    assert refused(reply) == (401, "invalid_token", None)


def test_unknown_paths_and_methods_answer_in_the_envelope(role: Role) -> None:
    assert refused(role.client.get("/nothing"))[:2] == (404, "not_found")
    assert refused(role.client.get("/embed"))[:2] == (405, "method_not_allowed")


def test_a_model_asked_for_by_many_at_once_is_fetched_once(door: ModelDoor, tmp_path: Path) -> None:
    role = start(door, tmp_path)
    before = len(door.asked)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: role.ask("/embed", "mdl_text", [{"text": "a"}]), range(8)))
    fetched = [path for path in door.asked[before:] if path.endswith("model.safetensors")]
    stop(role)
    assert [reply.status_code for reply in replies] == [200] * 8 and len(fetched) == 1


def test_many_who_wait_for_a_slow_model_hold_up_nobody_else(door: ModelDoor, tmp_path: Path) -> None:
    role = start(door, tmp_path)
    door.gates["mdl_text"] = threading.Event()
    with ThreadPoolExecutor(60) as threads:
        slow = [threads.submit(role.ask, "/predict", "mdl_topics", [{"text": "a"}])]
        slow += [threads.submit(role.ask, verb, "mdl_text", [{"text": "a"}]) for verb in ["/embed", "/predict"] * 29]
        time.sleep(0.5)
        reply = role.ask("/embed", "mdl_image", [{"image": base64.b64encode(picture(0)).decode()}])
        assert slow[0].result(30).status_code == 200
        assert reply.status_code == 200 and not any(each.done() for each in slow[1:])
        door.gates.pop("mdl_text").set()
        statuses = [each.result(60).status_code for each in slow[1:]]
    stop(role)
    assert statuses == [200, 422] * 29, "an encoder predicts nothing, but that is known only when it is loaded"


def test_who_hangs_up_is_computed_no_more(door: ModelDoor, tmp_path: Path) -> None:
    role = start(door, tmp_path)
    door.gates["mdl_text"] = threading.Event()
    body = {"model_id": "mdl_text", "digest": door.digest("mdl_text"), "items": [{"text": "a"}]}
    with pytest.raises(httpx2.ReadTimeout):
        role.client.post("/embed", json=body, timeout=0.5)
    door.gates.pop("mdl_text").set()
    deadline = time.monotonic() + 20
    while "groundwork_inference_model_loads_total 1.0" not in (told := role.client.get("/metrics").text):
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    time.sleep(0.2)
    told = role.client.get("/metrics").text
    stop(role)
    assert 'status="gone"' in told and 'groundwork_inference_tokens_total{verb="embed"}' not in told, told


def test_over_its_bound_it_answers_503_with_retry_after(door: ModelDoor, tmp_path: Path) -> None:
    role = start(door, tmp_path, inference_requests=1)
    door.delay = 0.3
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda _: role.ask("/embed", "mdl_text", [{"text": "a"}]), range(4)))
    door.delay = 0.0
    later = role.ask("/embed", "mdl_text", [{"text": "a"}])
    stop(role)
    busy = [reply for reply in replies if reply.status_code == 503]
    assert busy and {reply.status_code for reply in replies} == {200, 503} and later.status_code == 200
    assert all(reply.headers["retry-after"] == "1" and refused(reply)[1] == "inference_busy" for reply in busy)


def test_sigterm_answers_what_is_in_hand_and_exits(door: ModelDoor, tmp_path: Path) -> None:
    role = start(door, tmp_path)
    door.delay = 0.3
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(role.ask, "/embed", "mdl_text", [{"text": "a"}])
        time.sleep(0.4)  # it is fetching the model now
        role.process.send_signal(signal.SIGTERM)
        reply = asked.result(30)
    door.delay = 0.0
    assert reply.status_code == 200
    assert role.process.wait(timeout=20) in (0, -signal.SIGTERM)
    role.client.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"GROUNDWORK_WORKER_TOKEN": "short"}, "WORKER_TOKEN"),
        ({"GROUNDWORK_DATA_DIR": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_a_bad_setting_is_one_clear_line(settings: dict[str, str], said: str) -> None:
    environment = {**os.environ, "GROUNDWORK_WORKER_TOKEN": TOKEN, **settings}
    command = [sys.executable, "-m", "worker.inference"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_requests_tokens_and_models_are_measured_and_no_label_names_a_model(door: ModelDoor, tmp_path: Path) -> None:
    role = start(door, tmp_path)
    try:
        items = [{"text": text} for text in texts(3)]
        assert role.ask("/embed", "mdl_text", items).status_code == 200
        assert role.ask("/embed", "mdl_none", items).status_code == 404
        told = httpx2.get(str(role.client.base_url.join("/metrics"))).text
    finally:
        stop(role)
    assert 'groundwork_inference_requests_total{status="2xx",verb="embed"} 1.0' in told
    assert 'groundwork_inference_requests_total{status="4xx",verb="embed"} 1.0' in told
    assert "groundwork_inference_model_loads_total 1.0" in told and "groundwork_inference_waiting_tokens 0.0" in told
    assert "groundwork_inference_models 1.0" in told and 'groundwork_inference_tokens_total{verb="embed"}' in told
    assert "mdl_" not in told
    lines = [json.loads(line) for line in (tmp_path / "inference.log").read_text().splitlines()]
    assert [line["event"] for line in lines].count("model_loaded") == 1


def test_a_request_goes_on_with_the_trace_of_its_caller(
    door: ModelDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    for name, value in collector.environment().items():
        monkeypatch.setenv(name, value)
    role = start(door, tmp_path)
    try:
        body = {"model_id": "mdl_text", "digest": door.digest("mdl_text"), "items": [{"text": "bread"}]}
        caller = {"traceparent": f"00-{'4' * 32}-{'7' * 16}-01"}
        assert role.client.post("/embed", json=body, headers=caller).status_code == 200
    finally:
        stop(role)
        collector.stop()
    span = collector.named("inference embed")
    assert span is not None and (span.trace, span.parent) == ("4" * 32, "7" * 16)
    assert span.service == "groundwork-inference"
