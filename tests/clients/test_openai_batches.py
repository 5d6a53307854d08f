"""`/v1/batches` with the official client as it is, on a real server with a real worker and engine."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from app.batches import expiry
from app.jobs.tables import Job
from app.platform import session_scope
from tests.clients.served import Served, start_served, waited

EMBEDDINGS: Any = "/v1/embeddings"
PREDICTIONS: Any = "/v1/predictions"
GPU = {"resources": {"queue": "gpu"}}
"""No worker of these tests listens there."""


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from start_served(sqlite_template, tmp_path_factory.mktemp("batches"))


def line(name: str, model: str, input: Any = "bread and salt", url: str = "/v1/embeddings", **body: Any) -> str:
    request = {"custom_id": name, "method": "POST", "url": url, "body": {"model": model, "input": input, **body}}
    return json.dumps(request)


def upload(served: Served, *lines: str) -> str:
    content = "\n".join(lines).encode()
    return served.openai().files.create(file=("requests.jsonl", content), purpose="batch").id


def create(served: Served, *lines: str, endpoint: Any = EMBEDDINGS, **more: Any) -> Any:
    file = upload(served, *lines)
    return served.openai().batches.create(
        input_file_id=file, endpoint=endpoint, completion_window="24h", **more
    )


def answers(served: Served, file: str | None) -> dict[str, Any]:
    assert file is not None
    content = served.openai().files.content(file).text
    return {each["custom_id"]: each for each in map(json.loads, content.splitlines())}


def test_a_batch_walks_from_its_file_to_its_answers(served: Served) -> None:
    client, model = served.openai(), served.models["text"]
    made = create(
        served,
        line("one", model),
        line("two", model, ["oven", "tide and anchor"], encoding_format="base64"),
        line("three", model, "rose", dimensions=4),
        "",
        line("four", model, [1, 2, 3]),
        line("bad", model, ""),
        line("worse", model, "oven", dimensions=10_000),
        metadata={"who": "me"},
    )
    assert (made.object, made.status, made.endpoint, made.completion_window) == (
        "batch", "validating", EMBEDDINGS, "24h",
    )  # fmt: skip
    assert made.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    assert made.output_file_id is None and made.errors is None and made.model == model
    assert made.expires_at == made.created_at + 24 * 3600 and made.metadata == {"who": "me"}
    done = served.ended(made.id)
    assert done.status == "completed", done.errors
    assert done.errors is None
    assert done.request_counts.to_dict() == {"total": 6, "completed": 4, "failed": 2}
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert done.cancelled_at is None and done.failed_at is None and done.expired_at is None
    found = answers(served, done.output_file_id)
    assert list(found) == ["one", "two", "three", "four"]
    assert {each["response"]["status_code"] for each in found.values()} == {200}
    assert all(each["id"].startswith("batch_req_") and each["error"] is None for each in found.values())
    for name, asked in {
        "one": {"input": "bread and salt"}, "two": {"input": ["oven", "tide and anchor"]},
        "three": {"input": "rose", "dimensions": 4}, "four": {"input": [1, 2, 3]},
    }.items():  # fmt: skip
        direct = client.embeddings.create(model=model, encoding_format="float", **asked)  # type: ignore[arg-type]
        body = found[name]["response"]["body"]
        assert (body["object"], body["model"], body["usage"]) == ("list", model, direct.usage.to_dict())
        for mine, theirs in zip(body["data"], direct.data, strict=True):
            vector = mine["embedding"]
            if isinstance(vector, str):
                vector = np.frombuffer(base64.b64decode(vector), "<f4").tolist()
            assert mine["index"] == theirs.index and np.allclose(vector, theirs.embedding, atol=1e-5)
    wrong = answers(served, done.error_file_id)
    assert {name: each["response"]["status_code"] for name, each in wrong.items()} == {"bad": 422, "worse": 422}
    assert wrong["bad"]["response"]["body"]["error"]["code"] == "empty_input"
    assert wrong["worse"]["response"]["body"]["error"]["param"] == "dimensions"
    assert done.usage.total_tokens == sum(each["response"]["body"]["usage"]["total_tokens"] for each in found.values())


def test_what_a_batch_made_are_files_like_others(served: Served) -> None:
    client = served.openai()
    done = served.ended(create(served, line("one", served.models["text"])).id)
    about = client.files.retrieve(done.output_file_id)
    assert (about.purpose, about.status, about.filename) == ("batch_output", "processed", f"{done.id}_output.jsonl")
    assert about.id in [file.id for file in client.files.list(purpose="batch_output", limit=1)]
    assert about.bytes == len(client.files.content(about.id).read()) and done.error_file_id is None
    assert client.files.delete(about.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(about.id)
    again = client.batches.retrieve(done.id)
    assert again.status == "completed" and again.output_file_id == about.id
    job = client.get(f"/jobs/{done.id}/files", cast_to=object)
    assert [file["path"] for file in job["data"]] == ["manifest.json"], job  # type: ignore[index]


def test_predictions_of_a_task_and_of_a_language_model(served: Served) -> None:
    topics, writes = served.models["topics"], served.models["writes"]
    plain = served.ended(create(served, line("a", topics, ["oven", "mast"], PREDICTIONS), endpoint=PREDICTIONS).id)
    body = answers(served, plain.output_file_id)["a"]["response"]["body"]
    asked: dict[str, Any] = {"model": topics, "input": ["oven", "mast"]}
    direct: Any = served.openai().post("/predictions", cast_to=object, body=asked)
    assert [each["label"] for each in body["data"]] == [each["label"] for each in direct["data"]]
    asked = {"sampling": {"max_tokens": 5, "temperature": 0}, "seed": 3}
    wrote = served.ended(
        create(served, *(line(name, writes, "salt", PREDICTIONS, **asked) for name in "ab"), endpoint=PREDICTIONS).id
    )
    found = answers(served, wrote.output_file_id)
    direct = served.openai().post("/predictions", cast_to=object, body={"model": writes, "input": "salt", **asked})
    assert {each["response"]["body"]["data"][0]["text"] for each in found.values()} == {direct["data"][0]["text"]}


def test_a_bad_file_fails_the_batch_with_every_line_named(served: Served) -> None:
    model, other = served.models["text"], served.models["topics"]
    made = create(
        served, line("a", model), "{not json", line("a", model), line("b", other), line("c", "mdl_nothing"),
        line("d", model, url="/v1/predictions"), json.dumps({"custom_id": "e", "method": "GET"}), '{"a": NaN}', "[1]",
    )  # fmt: skip
    failed = served.ended(made.id)
    assert failed.status == "failed" and failed.failed_at and failed.output_file_id is None
    assert [(each.line, each.code, each.param) for each in failed.errors.data] == [
        (2, "invalid_json_line", None), (3, "duplicate_custom_id", "custom_id"), (4, "mismatched_model", "body.model"),
        (5, "mismatched_model", "body.model"), (6, "invalid_value", "url"), (7, "invalid_value", "method"),
        (8, "not_finite", "a"), (9, "type_error", None),
    ]  # fmt: skip
    assert failed.errors.object == "list" and "line 1" in failed.errors.data[1].message
    assert [each.status for each in served.openai().batches.list() if each.id == made.id] == ["failed"]


def test_a_file_whose_model_nobody_has_fails_like_one_with_a_foreign_model(served: Served) -> None:
    stranger = served.openai(served.stranger_key)
    told = []
    for client, model in ((served.openai(), "mdl_nothing"), (stranger, served.models["text"])):
        file = client.files.create(file=("r.jsonl", line("a", model).encode()), purpose="batch").id
        made = client.batches.create(input_file_id=file, endpoint=EMBEDDINGS, completion_window="24h")
        assert made.model is None
        failed = waited(lambda made=made, client=client: client.batches.retrieve(made.id), {"failed"})
        told.append([(each.line, each.code, each.message.replace(model, "M")) for each in failed.errors.data])
    assert told[0] == told[1] == [(1, "model_not_found", "No model with id 'M'.")]


def test_a_model_without_a_task_and_an_empty_file_fail(served: Served) -> None:
    made = create(served, line("a", served.models["text"], url=PREDICTIONS), endpoint=PREDICTIONS)
    assert [each.code for each in served.ended(made.id).errors.data] == ["no_task"]
    assert [each.code for each in served.ended(create(served, " ", "").id).errors.data] == ["empty_file"]


def test_a_batch_waits_is_cancelled_and_stays_so(served: Served) -> None:
    client = served.openai()
    made = create(served, line("a", served.models["text"]), extra_body=GPU)
    assert client.batches.retrieve(made.id).status == "validating"
    with pytest.raises(openai.ConflictError) as caught:
        client.files.delete(made.input_file_id)
    assert caught.value.code == "in_use"
    cancelled = client.batches.cancel(made.id)
    assert cancelled.status == "cancelled" and cancelled.cancelled_at
    assert client.batches.cancel(made.id).status == "cancelled"
    assert client.files.delete(made.input_file_id).deleted
    done = served.ended(create(served, line("a", served.models["text"])).id)
    with pytest.raises(openai.ConflictError) as caught:
        client.batches.cancel(done.id)
    assert caught.value.code == "invalid_state"


def test_a_running_batch_tells_how_far_it_is_and_is_cancelling_until_let_go(served: Served) -> None:
    client = served.openai()
    made = create(served, line("a", served.models["text"]), extra_body=GPU)
    ticket = served.door.claim(made.id, "gpu")
    assert ticket is not None and [each["role"] for each in ticket["inputs"]] == ["model", "upload"]
    assert client.batches.retrieve(made.id).status == "validating"
    stage = {"time": 0.0, "type": "stage"}
    counted = {"step": 7, "values": {"batch/failed": 2.0}, "type": "metrics", "time": 0.0}
    progress = {"time": 0.0, "type": "progress", "stage": "embedding", "step": 7, "total_steps": 9}
    served.door.post(ticket, "events", events=[
        {**stage, "seq": 1, "stage": "validating"}, {**stage, "seq": 2, "stage": "embedding"},
        {**counted, "seq": 3}, {**progress, "seq": 4},
    ])  # fmt: skip
    running = client.batches.retrieve(made.id)
    assert running.status == "in_progress" and running.in_progress_at and running.finalizing_at is None
    assert running.request_counts.to_dict() == {"total": 9, "completed": 5, "failed": 2}
    served.door.post(ticket, "events", events=[{**stage, "seq": 5, "stage": "finalizing"}])
    assert client.batches.retrieve(made.id).status == "finalizing"
    asked = client.batches.cancel(made.id)
    assert asked.status == "cancelling" and asked.cancelling_at and asked.cancelled_at is None
    served.door.post(ticket, "release", reason="cancel")
    assert client.batches.retrieve(made.id).status == "cancelled"


def test_a_batch_that_did_not_end_in_its_window_is_expired(served: Served) -> None:
    client = served.openai()
    waiting, running = (create(served, line("a", served.models["text"]), extra_body=GPU) for _ in range(2))
    ticket = served.door.claim(running.id, "gpu")
    assert ticket is not None and expiry.sweep(served.platform) == 0
    with session_scope(served.platform) as session:
        for made in (waiting, running):
            session.get_one(Job, made.id).created_at -= 24 * 3_600_000
    expiry.sweep(served.platform)
    for made in (waiting, running):
        found = client.batches.retrieve(made.id)
        assert found.status == "expired" and found.expired_at and found.errors is None and found.failed_at is None
    assert served.door.post(ticket, "heartbeat").status_code == 409


def test_a_batch_survives_the_kill_of_its_worker(served: Served) -> None:
    made = create(
        served, *(line(f"r{at}", served.models["text"], [f"salt {at}", "oven"] * 20) for at in range(1000))
    )
    waited(lambda: served.openai().batches.retrieve(made.id), {"in_progress"})
    worker = served.started[-1]
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    served.start_worker()
    done = served.ended(made.id)
    assert done.status == "completed"
    assert done.request_counts.to_dict() == {"total": 1000, "completed": 1000, "failed": 0}
    found = answers(served, done.output_file_id)
    assert list(found) == [f"r{at}" for at in range(1000)]
    job: Any = served.openai().get(f"/jobs/{made.id}", cast_to=object)
    assert len(job["attempts"]) == 2


def test_batches_page_and_are_jobs_of_the_same_machine(served: Served) -> None:
    client = served.openai()
    made = [create(served, line("a", served.models["text"]), extra_body=GPU).id for _ in range(3)]
    listed = [each.id for each in client.batches.list(limit=2)]
    assert listed[:3] == made[::-1] and len(set(listed)) == len(listed)
    assert [each.id for each in client.batches.list(after=made[2], limit=1).data] == [made[1]]
    job: Any = client.get(f"/jobs/{made[0]}", cast_to=object)
    assert (job["type"], job["spec"]["completion_window"]) == ("batch", "24h")
    with pytest.raises(openai.NotFoundError):
        served.openai(served.stranger_key).batches.retrieve(made[0])
    with pytest.raises(openai.NotFoundError) as caught:
        client.fine_tuning.jobs.retrieve(made[0])
    assert caught.value.code == "not_found"


def test_a_resent_request_is_the_same_batch(served: Served) -> None:
    client, file = served.openai(), upload(served, line("a", served.models["text"]))
    body: Any = {"input_file_id": file, "endpoint": EMBEDDINGS, "completion_window": "24h", "extra_body": GPU}
    first = client.batches.create(**body)
    again = client.batches.create(**body, extra_headers={"x-stainless-retry-count": "1"})
    assert again.id == first.id != client.batches.create(**body).id


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"input_file_id": "ds_nothing"}, "input_file_id", "not_found"),
    ({"input_file_id": "file-abc"}, "input_file_id", "invalid_format"),
    ({"endpoint": "/v1/chat/completions"}, "endpoint", "invalid_value"),
    ({"completion_window": "1h"}, "completion_window", "invalid_value"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after", "unknown_field"),
    ({"metadata": {"a": 1}}, "metadata.a", "type_error"),
]


def test_a_request_that_cannot_run_is_refused_at_its_field(served: Served) -> None:
    client, file = served.openai(), upload(served, line("a", served.models["text"]))
    good = {"input_file_id": file, "endpoint": EMBEDDINGS, "completion_window": "24h"}
    dataset = client.files.create(file=("a.txt", b"bread"), purpose="fine-tune").id
    cases = [*REFUSED, ({"input_file_id": dataset}, "input_file_id", "wrong_purpose")]
    for change, param, code in cases:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.post("/batches", cast_to=object, body={**good, **change})
        assert (caught.value.param, caught.value.code) == (param, code), (change, caught.value.message)
