"""Whatever belongs to another project answers like what does not exist (R25, B21, B22), for every route there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.app import registered
from tests.app.conftest import Api
from tests.app.jobs_world import Worker, bearer, pretrain_body, ready_dataset
from tests.model_folders import text_model

VARYING = {"x-request-id", "date", "ratelimit"}
IDS_IN_BODIES = {
    "dataset", "validation_dataset", "test_dataset", "training_dataset", "model", "pool", "public_model",
    "training_file", "validation_file", "input_file_id",
}  # fmt: skip


@dataclass
class World:
    """Two projects that own one of everything, and a worker in each one's job."""

    api: Api
    document: dict[str, Any]
    mine: dict[str, str]
    """Path parameter -> the id of the first project's thing."""
    theirs: dict[str, str]
    ticket: dict[str, Any]
    """Of the stranger's running job."""
    their_test: str
    """One more dataset of the stranger's."""


def one_of_everything(api: Api, whose: str, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    client, project = (api.client, api.project_id) if whose == "mine" else (api.stranger, api.stranger_project_id)
    worker = Worker(api.anonymous)
    dataset = ready_dataset(api.platform, project)
    ticket = worker.claim(client.post("/v1/jobs", json=pretrain_body(dataset)).json()["id"])
    assert ticket is not None
    worker.put(ticket, "samples/a.txt", b"a")
    sample = {"seq": 1, "time": 0.0, "type": "sample", "step": 1, "name": "fill", "path": "samples/a.txt"}
    worker.post(ticket, "events", events=[{**sample, "media_type": "text/plain"}])
    job = str(ticket["job_id"])
    upload = {"filename": "a.txt", "bytes": 5, "mime_type": "text/plain", "purpose": "pretrain"}
    sent = client.post("/v1/files", files={"file": ("r.jsonl", b"{}")}, data={"purpose": "batch"})
    requests = sent.json()["id"]
    batch = {"input_file_id": requests, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    made = {
        "project_id": project, "batch_id": client.post("/v1/batches", json=batch).json()["id"], "requests": requests,
        "job_id": job, "dataset_id": dataset, "file_id": dataset,
        "key_id": client.post("/v1/api_keys", json={"name": "k"}).json()["id"],
        "upload_id": client.post("/v1/uploads", json=upload).json()["id"],
        "sample_id": client.get(f"/v1/jobs/{job}/samples").json()["data"][0]["id"],
        "model_id": registered.model(api.platform, project, folder), "input_id": dataset,
        "endpoint_id": client.post(
            "/v1/webhook_endpoints", json={"url": "https://example.com/", "events": ["job.failed"]}
        ).json()["id"],
        "checkpoint_id": worker.checkpoint(ticket, 1).json()["id"],
    }  # fmt: skip
    return made, ticket


@pytest.fixture(scope="module")
def world(shared_api: Api, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = text_model(tmp_path_factory.mktemp("made") / "model", task=True)
    mine, _ = one_of_everything(shared_api, "mine", folder)
    theirs, ticket = one_of_everything(shared_api, "theirs", folder)
    their_test = ready_dataset(shared_api.platform, shared_api.stranger_project_id, b"test")
    return World(shared_api, shared_api.app.openapi(), mine, theirs, ticket, their_test)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], list[str]]]:
    """(method, path, operation, its id parameters) of every route that has one."""
    for path, methods in document["paths"].items():
        ids = [name for name in re.findall(r"{(\w+)}", path) if name != "path"]
        for method, operation in methods.items():
            if ids:
                yield method.upper(), path, operation, ids


def missing(id: str) -> str:
    """An id of the same form that nothing has."""
    return id[:-8] + "00000000"


def body_of(operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A body of the right form, from the document itself."""
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        return {"files": {"data": ("part", b"hello")}}
    if "application/json" not in content:
        return {}
    if "examples" in content["application/json"]:
        return {"json": next(iter(content["application/json"]["examples"].values()))["value"]}
    schema = content["application/json"]["schema"]
    found = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return {"json": found.get("example") or found["examples"][0]}


def bodies_of_the_door(path: str) -> dict[str, Any]:
    file = {"path": "a", "size": 1, "sha256": "0" * 64}
    return {
        "events": {"events": []}, "logs": {"offset": 0, "text": ""}, "complete": {"files": []},
        "checkpoints": {"step": 1, "files": [file]}, "release": {"reason": "drain"},
        "fail": {"error": {"class": "user", "code": "c", "message": "m"}},
    }.get(path.rpartition("/")[2], {})  # fmt: skip


def seen(reply: httpx2.Response, asked: str, shown: str) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All that a caller sees, with the id that was asked for written as `shown`."""
    headers = [(name, value) for name, value in sorted(reply.headers.multi_items()) if name not in VARYING]
    return reply.status_code, reply.content.replace(asked.encode(), shown.encode()), headers


def test_every_route_with_an_id_answers_a_foreign_one_like_a_missing_one(world: World) -> None:
    checked = 0
    for method, path, operation, names in operations(world.document):
        if not path.startswith("/v1/"):
            continue
        sent = body_of(operation, world.document)
        for at, name in enumerate(names):
            # All ids before this one are the stranger's own: it is the one that is put to the test.
            ids = {**world.mine, **{own: world.theirs[own] for own in names[:at]}, "path": "config.json"}
            foreign = world.api.stranger.request(method, path.format(**ids), **sent)
            ids[name] = missing(world.mine[name])
            absent = world.api.stranger.request(method, path.format(**ids), **sent)
            assert foreign.status_code == 404, (method, path, foreign.text)
            assert foreign.json()["error"]["code"] == "not_found", (method, path)
            assert seen(foreign, world.mine[name], ids[name]) == seen(absent, ids[name], ids[name]), (method, path)
            checked += 1
    assert checked >= 30, "the document lost its routes"


def test_nothing_of_the_owner_was_touched(world: World) -> None:
    """The routes above included every delete, cancel, rename and rotation."""
    test_every_route_with_an_id_answers_a_foreign_one_like_a_missing_one(world)
    mine, client = world.mine, world.api.client
    assert client.get(f"/v1/jobs/{mine['job_id']}").json()["status"] == "running"
    assert client.get(f"/v1/uploads/{mine['upload_id']}").json()["parts"] == []
    assert client.get(f"/v1/api_keys/{mine['key_id']}").json()["revoked_at"] is None
    assert client.get(f"/v1/models/{mine['model_id']}").json()["name"] == "topics"
    assert client.get(f"/v1/datasets/{mine['dataset_id']}/content").content == b"rows"


def test_the_owner_finds_at_each_of_these_routes_what_the_stranger_does_not(world: World) -> None:
    """Else a 404 above might be for the route, or for the form of the id."""
    for method, path, _, _names in operations(world.document):
        # A running job has no file to look at yet: tests/app/test_parts.py sees the owner download one.
        if method == "GET" and path.startswith("/v1/") and path != "/v1/jobs/{job_id}/files/{path}":
            reply = world.api.client.get(path.format(**world.mine, path="config.json"))
            # This dataset was registered without its preview.
            assert reply.status_code == 200 or path.endswith(("/preview", "/profile")), (path, reply.text)


def test_an_attempts_token_answers_another_job_like_a_missing_one(world: World) -> None:
    checked = 0
    token = {**bearer(world.ticket["token"]), "X-Fence": "1", "X-Content-SHA256": "0" * 64}
    for method, path, _, names in operations(world.document):
        if not path.startswith("/internal/v1/jobs/"):
            continue
        for at, name in enumerate(names):
            ids = {**world.mine, **{own: world.theirs[own] for own in names[:at]}, "path": "config.json"}
            sent = {"json": {"fence": 1, **bodies_of_the_door(path)}} if method == "POST" else {}
            foreign = world.api.anonymous.request(method, path.format(**ids), headers=token, **sent)
            ids[name] = missing(world.mine[name])
            absent = world.api.anonymous.request(method, path.format(**ids), headers=token, **sent)
            assert foreign.status_code == 404, (method, path, foreign.text)
            assert seen(foreign, world.mine[name], ids[name]) == seen(absent, ids[name], ids[name]), (method, path)
            checked += 1
    assert checked >= 10


def references(world: World, ids: dict[str, str]) -> dict[str, tuple[str, dict[str, Any], str]]:
    """Field -> (path, body that names the thing there, what to put to the test), for every id inside a body."""
    own, dataset, model = world.theirs["dataset_id"], ids["dataset_id"], ids["model_id"]
    search = f"/v1/datasets/{own}/search"
    tune = {"type": "finetune", "dataset": own, "task": {"name": "classification"}}
    judge = {"type": "evaluate", "dataset": own, "model": world.theirs["model_id"]}
    measure = {
        "type": "label_efficiency", "model": world.theirs["model_id"], "dataset": own, "labels": [5],
        "test_dataset": world.their_test, "arms": ["probe"],
    }
    return {
        "dataset": ("/v1/jobs", pretrain_body(dataset), dataset),
        "model": ("/v1/jobs", pretrain_body(own, model=model), model),
        "probe.dataset": ("/v1/jobs", pretrain_body(own, probe={"dataset": dataset}), dataset),
        "validation_dataset": ("/v1/jobs", {**tune, "validation_dataset": dataset}, dataset),
        "finetune dataset": ("/v1/jobs", {**tune, "dataset": dataset}, dataset),
        "finetune model": ("/v1/jobs", {**tune, "model": model}, model),
        "test_dataset": ("/v1/jobs", {**tune, "test_dataset": dataset}, dataset),
        "evaluate dataset": ("/v1/jobs", {**judge, "dataset": dataset}, dataset),
        "evaluate training_dataset": ("/v1/jobs", {**judge, "training_dataset": dataset}, dataset),
        "evaluate pool": ("/v1/jobs", {**judge, "pool": dataset}, dataset),
        "evaluate model": ("/v1/jobs", {**judge, "model": model}, model),
        "predict dataset": ("/v1/jobs", {**judge, "type": "predict", "dataset": dataset}, dataset),
        "predict model": ("/v1/jobs", {**judge, "type": "predict", "model": model}, model),
        "embed dataset": ("/v1/jobs", {**judge, "type": "embed", "dataset": dataset}, dataset),
        "embed model": ("/v1/jobs", {**judge, "type": "embed", "model": model}, model),
        "label_efficiency dataset": ("/v1/jobs", {**measure, "dataset": dataset}, dataset),
        "label_efficiency test_dataset": ("/v1/jobs", {**measure, "test_dataset": dataset}, dataset),
        "label_efficiency model": ("/v1/jobs", {**measure, "model": model}, model),
        "label_efficiency pool": ("/v1/jobs", {**measure, "arms": ["classical"], "pool": dataset}, dataset),
        "label_efficiency public_model": (
            "/v1/jobs", {**measure, "arms": ["public"], "public_model": model}, model,
        ),
        "tuning training_file": ("/v1/fine_tuning/jobs", {"training_file": dataset}, dataset),
        "tuning validation_file": (
            "/v1/fine_tuning/jobs", {"training_file": own, "validation_file": dataset}, dataset,
        ),
        "tuning model": ("/v1/fine_tuning/jobs", {"training_file": own, "model": model}, model),
        "search model": (search, {"query": "a", "model": model}, model),
        "batch input_file_id": (
            "/v1/batches",
            {"input_file_id": ids["requests"], "endpoint": "/v1/embeddings", "completion_window": "24h"},
            ids["requests"],
        ),
        "input[0]": (
            "/v1/embeddings", {"model": world.theirs["model_id"], "input": [{"dataset": dataset, "row": 0}]}, dataset,
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "dataset",
        "model",
        "probe.dataset",
        "validation_dataset",
        "finetune dataset",
        "finetune model",
        "test_dataset",
        "evaluate dataset",
        "evaluate model",
        "label_efficiency dataset",
        "label_efficiency test_dataset",
        "label_efficiency model",
        "label_efficiency pool",
        "label_efficiency public_model",
        "tuning training_file",
        "tuning validation_file",
        "tuning model",
        "search model",
        "batch input_file_id",
        "input[0]",
    ],
)
@pytest.mark.parametrize("door", ["", "/estimate"])
def test_a_foreign_id_inside_a_body_gets_422_at_its_field_like_a_missing_one(
    world: World, name: str, door: str
) -> None:
    path, body, asked = references(world, world.mine)[name]
    nothing = {
        **world.mine,
        "dataset_id": missing(world.mine["dataset_id"]),
        "model_id": missing(world.mine["model_id"]),
        "requests": missing(world.mine["requests"]),
    }
    _, other, absent_id = references(world, nothing)[name]
    if door and path == "/v1/jobs":
        if body["type"] not in ("pretrain", "finetune"):
            pytest.skip("only trainings are estimated")
        path += door
    elif name.startswith("input"):
        path = "/v1/predictions" if door else path
    foreign, absent = world.api.stranger.post(path, json=body), world.api.stranger.post(path, json=other)
    error = foreign.json()["error"]
    assert (foreign.status_code, error["code"]) == (422, "not_found"), error
    assert error["param"] == name.rpartition(" ")[2], error
    assert seen(foreign, asked, absent_id) == seen(absent, absent_id, absent_id)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/predictions"])
def test_a_foreign_model_to_call_gets_404_like_a_missing_one(world: World, path: str) -> None:
    for field in ("model_id", "job_id"):
        mine = world.mine[field]
        foreign = world.api.stranger.post(path, json={"model": mine, "input": "a"})
        absent = world.api.stranger.post(path, json={"model": missing(mine), "input": "a"})
        error = foreign.json()["error"]
        assert (foreign.status_code, error["code"], error["param"]) == (404, "not_found", "model")
        assert seen(foreign, mine, missing(mine)) == seen(absent, missing(mine), missing(mine))


def test_a_foreign_part_cannot_be_joined_into_an_upload(world: World) -> None:
    begun = {"filename": "a.txt", "bytes": 5, "mime_type": "text/plain", "purpose": "pretrain"}
    made = [client.post("/v1/uploads", json=begun).json()["id"] for client in (world.api.client, world.api.stranger)]
    part = world.api.client.post(f"/v1/uploads/{made[0]}/parts", files={"data": b"hello"}).json()["id"]
    url = f"/v1/uploads/{made[1]}/complete"
    foreign, absent = (world.api.stranger.post(url, json={"part_ids": [id]}) for id in (part, missing(part)))
    assert (foreign.status_code, foreign.json()["error"]["param"]) == (404, "part_ids.0")
    assert seen(foreign, part, missing(part)) == seen(absent, missing(part), missing(part))


def test_no_other_field_of_a_body_holds_an_id(world: World) -> None:
    """A new field with an id in it has to come into `references`."""
    found = set()
    for schema in world.document["components"]["schemas"].values():
        for name, field in schema.get("properties", {}).items():
            if re.search(r"'pattern': '\^\(?(ds|mdl|job|key|upl|ckpt)_", str(field)):
                found.add(name)
    assert found <= IDS_IN_BODIES and "dataset" in found, found


def test_a_foreign_cursor_is_a_forged_one(world: World) -> None:
    pages = {"/v1/jobs": "job_id", "/v1/datasets": "dataset_id", "/v1/files": "file_id", "/v1/models": "model_id",
             "/v1/batches": "batch_id", "/v1/api_keys": "key_id", "/v1/projects": "project_id"}  # fmt: skip
    own = world.theirs["job_id"]
    pages |= {f"/v1/jobs/{own}/samples": "sample_id", f"/v1/jobs/{own}/checkpoints": "checkpoint_id"}
    for path, kind in pages.items():
        foreign, forged = (
            world.api.stranger.get(path, params={"after": each})
            for each in (world.mine[kind], missing(world.mine[kind]))
        )
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (400, "invalid_cursor"), path
        assert foreign.content == forged.content, path
