"""`/v1/jobs`: what may be asked for, what is refused and in which words, and what a job shows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.datasets import service as datasets
from app.platform import session_scope
from app.storage import Stored
from tests.app.conftest import Api, client_of, make_settings, serve
from tests.app.jobs_world import Worker, metrics_event, pretrain_body, ready_dataset


@pytest.fixture
def dataset(api: Api) -> str:
    """A ready dataset."""
    return ready_dataset(api.platform, api.project_id)


def create(api: Api, body: dict[str, Any], **headers: str) -> Any:
    """The raw reply."""
    return api.client.post("/v1/jobs", json=body, headers=headers)


def test_the_smallest_request_shows_every_number_and_sent_back_is_the_same(api: Api, dataset: str) -> None:
    job = create(api, pretrain_body(dataset)).json()
    assert job["object"] == "job" and job["status"] == "queued" and job["attempts"] == []
    assert job["spec"] == pretrain_body(dataset)
    again = create(api, job["resolved_spec"])
    assert again.status_code == 201 and again.json()["resolved_spec"] == job["resolved_spec"]
    assert again.json()["id"] != job["id"]


def test_an_estimate_makes_no_job(api: Api, dataset: str) -> None:
    found = api.client.post("/v1/jobs/estimate", json=pretrain_body(dataset, budget={"steps": 300})).json()
    assert found["steps"] == 300 and found["parameters"] > 10**5 and found["memory_bytes"] > 10**8
    assert api.client.get("/v1/jobs").json()["data"] == []


REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"objective": {"name": "invented"}}, "objective", "invalid_value"),
    ({"objective": {"name": "simclr"}}, "objective.name", "modality_mismatch"),
    ({"objective": {"name": "mlm", "mask_probability": 1.5}}, "objective.mask_probability", "out_of_range"),
    ({"backbone": "text-huge"}, "backbone", "invalid_value"),
    ({"backbone": "image-resnet18"}, "backbone.family", "backbone_mismatch"),
    ({"batch_size": 0}, "batch_size", "out_of_range"),
    ({"batch_size": 10**9}, "batch_size", "out_of_range"),
    ({"batch_size": True}, "batch_size", "type_error"),
    ({"batch_size": "7"}, "batch_size", "type_error"),
    ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate", "out_of_range"),
    ({"optimizer": {"learning_rate": -1}}, "optimizer.learning_rate", "out_of_range"),
    ({"budget": {"epochs": 10**9}}, "budget.epochs", "out_of_range"),
    ({"budget": {"epochs": 1, "steps": 1}}, "budget", "invalid_value"),
    ({"budget": {}}, "budget", "invalid_value"),
    ({"status": "succeeded"}, "status", "unknown_field"),
    ({"fence": 7}, "fence", "unknown_field"),
    ({"project_id": "p"}, "project_id", "unknown_field"),
    ({"dataset": "file:///etc/passwd"}, "dataset", "invalid_format"),
    ({"dataset": "ds_unknown"}, "dataset", "not_found"),
    ({"model": "mdl_unknown"}, "model", "not_found"),
    ({"probe": {"dataset": "ds_unknown"}}, "probe.dataset", "not_found"),
    ({"metadata": {"k": 7}}, "metadata.k", "type_error"),
    ({"batch_size": 65_536, "modality": {"name": "text", "max_length": 8192, "span_max": 64}}, "modality.max_length",
     "infeasible_config"),
    ({"batch_size": 65_536, "backbone": "text-large"}, "batch_size", "infeasible_config"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "param", "code"), REFUSALS, ids=lambda value: str(value)[:40])
def test_a_spec_that_cannot_run_is_refused_at_its_field(
    api: Api, dataset: str, change: dict[str, Any], param: str, code: str
) -> None:
    reply = create(api, pretrain_body(dataset) | change)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (422, code), error
    assert error["param"].startswith(param), error
    assert api.client.get("/v1/jobs").json()["data"] == []


def test_a_foreign_dataset_is_a_missing_one(api: Api, dataset: str) -> None:
    foreign = api.stranger.post("/v1/jobs", json=pretrain_body(dataset))
    missing = api.stranger.post("/v1/jobs", json=pretrain_body("ds_01jd3w8m6kaaaaaaaaaaaaaaaa"))
    assert foreign.status_code == missing.status_code == 422
    assert foreign.json()["error"]["message"].replace(dataset, "X") == missing.json()["error"]["message"].replace(
        "ds_01jd3w8m6kaaaaaaaaaaaaaaaa", "X"
    )


def test_a_dataset_still_in_ingest_is_a_conflict(api: Api) -> None:
    dataset_id = datasets.new_dataset_id()
    api.platform.store.put(datasets.upload_key(dataset_id), b"x")
    with session_scope(api.platform) as session:
        stored = Stored(datasets.upload_key(dataset_id), 1, "0" * 64)
        new = datasets.NewDataset(dataset_id, stored, "a.txt")
        datasets.create(session, api.platform.settings, api.project_id, new)
    reply = create(api, pretrain_body(dataset_id))
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "not_ready")
    assert reply.headers["x-should-retry"] == "false"


def test_a_foreign_job_is_byte_for_byte_a_missing_one(api: Api, dataset: str) -> None:
    job = create(api, pretrain_body(dataset)).json()["id"]
    missing = "job_00000000000000000000000000"
    routes = [("GET", ""), ("POST", "/cancel"), ("POST", "/pause"), ("POST", "/resume"), ("GET", "/events"),
              ("GET", "/metrics"), ("GET", "/checkpoints"), ("GET", "/samples"), ("GET", "/logs"),
              ("GET", "/samples/smp_1/content")]  # fmt: skip
    for method, tail in routes:
        foreign = api.stranger.request(method, f"/v1/jobs/{job}{tail}")
        absent = api.stranger.request(method, f"/v1/jobs/{missing}{tail}")
        assert foreign.status_code == absent.status_code == 404, tail
        assert foreign.content.replace(job.encode(), b"") == absent.content.replace(missing.encode(), b""), tail
    assert api.client.get(f"/v1/jobs/{job}").json()["status"] == "queued"


def test_a_create_that_the_client_sends_again_is_the_same_job(api: Api, dataset: str) -> None:
    body = pretrain_body(dataset)
    first = create(api, body, **{"x-stainless-retry-count": "0"}).json()["id"]
    assert create(api, body, **{"x-stainless-retry-count": "1"}).json()["id"] == first
    assert create(api, body | {"seed": 1}, **{"x-stainless-retry-count": "1"}).json()["id"] != first
    assert create(api, body, **{"x-stainless-retry-count": "0"}).json()["id"] != first


def test_an_idempotency_key_makes_one_job(api: Api, dataset: str) -> None:
    replies = [create(api, pretrain_body(dataset), **{"Idempotency-Key": "k1"}) for _ in range(2)]
    assert replies[0].content == replies[1].content
    assert len(api.client.get("/v1/jobs").json()["data"]) == 1


def test_the_limit_of_live_jobs_is_exact_under_racing_creates(database_url: str, tmp_path: Any) -> None:
    for api in serve(make_settings(database_url, tmp_path, max_queued_jobs=5)):
        dataset = ready_dataset(api.platform, api.project_id)
        key = api.client.headers["authorization"].removeprefix("Bearer ")

        def one(_: int, api: Api = api, key: str = key, dataset: str = dataset) -> Any:
            return client_of(api.app, key).post("/v1/jobs", json=pretrain_body(dataset))

        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(one, range(12)))
        assert sorted(reply.status_code for reply in replies) == [201] * 5 + [429] * 7
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert refused.json()["error"]["code"] == "concurrency_limit" and "retry-after" in refused.headers


def test_lists_filter_by_status_type_and_metadata(api_everywhere: Api) -> None:
    api = api_everywhere
    dataset = ready_dataset(api.platform, api.project_id)
    first = create(api, pretrain_body(dataset, metadata={"team": "a", 'odd"key': "1"})).json()["id"]
    second = create(api, pretrain_body(dataset, metadata={"team": "b"})).json()["id"]
    api.client.post(f"/v1/jobs/{second}/cancel")

    def ids(query: str) -> list[str]:
        return [job["id"] for job in api.client.get(f"/v1/jobs?{query}").json()["data"]]

    assert ids("") == [second, first], "newest first, without the ingest job"
    assert ids("status=cancelled") == [second]
    assert ids("metadata[team]=a") == ids('metadata[odd"key]=1') == [first]
    assert ids("metadata[team]=c") == ids("type=finetune") == []
    assert len(ids("type=ingest")) == 1
    assert ids("limit=1") == [second] and ids(f"limit=1&after={second}") == [first]
    assert api.client.get("/v1/jobs?metadata=a").status_code == 422
    assert api.client.get("/v1/jobs?status=done").status_code == 422


def test_an_unchanged_job_answers_304_and_a_changed_one_does_not(api: Api, dataset: str) -> None:
    url = f"/v1/jobs/{create(api, pretrain_body(dataset)).json()['id']}"
    tag = {"If-None-Match": api.client.get(url).headers["etag"]}
    assert api.client.get(url, headers=tag).status_code == 304
    ticket = Worker(api.anonymous).claim(url.rpartition("/")[2])
    assert ticket is not None
    changed = api.client.get(url, headers=tag)
    assert changed.status_code == 200 and changed.json()["attempts"][0]["worker"] == "host-1"
    Worker(api.anonymous).post(ticket, "heartbeat")
    assert api.client.get(url, headers={"If-None-Match": changed.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("state", ["queued", "running", "paused", "succeeded", "failed", "cancelled"])
def test_cancel_in_each_state(api: Api, dataset: str, state: str) -> None:
    job = create(api, pretrain_body(dataset)).json()["id"]
    url, worker = f"/v1/jobs/{job}", Worker(api.anonymous)
    ticket = worker.claim(job) if state in ("running", "succeeded", "failed") else None
    if state == "paused":
        assert api.client.post(f"{url}/pause").json()["status"] == "paused"
    if state == "cancelled":
        api.client.post(f"{url}/cancel")
    if state == "succeeded" and ticket:
        worker.complete(ticket)
    if state == "failed" and ticket:
        worker.post(ticket, "fail", error={"class": "user", "code": "c", "message": "m", "param": "p"})
    reply = api.client.post(f"{url}/cancel")
    if state in ("succeeded", "failed"):
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "invalid_state")
        assert api.client.get(url).json()["status"] == state
    else:
        assert reply.status_code == 202
        assert reply.json()["status"] == ("cancelling" if state == "running" else "cancelled")
        assert api.client.post(f"{url}/cancel").status_code == 202, "again is a no-op"


def test_pause_and_resume_walk_the_whole_way(api: Api, dataset: str) -> None:
    job = create(api, pretrain_body(dataset)).json()["id"]
    url, worker = f"/v1/jobs/{job}", Worker(api.anonymous)
    ticket = worker.claim(job)
    assert ticket is not None
    assert api.client.post(f"{url}/pause").json()["status"] == "pausing"
    assert worker.post(ticket, "heartbeat").json()["command"] == "pause"
    worker.checkpoint(ticket, 5)
    assert worker.post(ticket, "release", reason="pause").json() == {"status": "paused"}
    assert worker.claim(job) is None
    assert api.client.post(f"{url}/resume").json()["status"] == "queued"
    again = worker.claim(job)
    assert again is not None and again["fence"] == 2 and again["checkpoints"][0]["step"] == 5
    assert worker.complete(again).json() == {"status": "succeeded"}
    states = [event["data"]["to"] for event in api.client.get(f"{url}/events?order=asc").json()["data"]
              if event["type"] == "state"]  # fmt: skip
    assert states == ["queued", "running", "pausing", "paused", "queued", "running", "succeeded"]
    assert [each["outcome"] for each in api.client.get(url).json()["attempts"]] == ["paused", "succeeded"]


def test_a_key_that_may_only_read_changes_nothing(api: Api, dataset: str) -> None:
    job = create(api, pretrain_body(dataset)).json()["id"]
    reader = api.with_scopes("read")
    assert reader.post("/v1/jobs", json=pretrain_body(dataset)).status_code == 403
    assert {reader.post(f"/v1/jobs/{job}/{verb}").status_code for verb in ("cancel", "pause", "resume")} == {403}
    assert reader.get(f"/v1/jobs/{job}").json()["status"] == "queued"


def test_curves_are_thinned_with_both_ends_kept_and_come_as_csv(api: Api, dataset: str) -> None:
    job = create(api, pretrain_body(dataset)).json()["id"]
    worker = Worker(api.anonymous)
    ticket = worker.claim(job)
    assert ticket is not None
    worker.post(ticket, "events", events=[metrics_event(seq, seq, loss=seq / 2, lr=1.0) for seq in range(1, 101)])
    thin = api.client.get(f"/v1/jobs/{job}/metrics?series=loss&points=5").json()["series"]
    assert [each["name"] for each in thin] == ["loss"]
    assert (thin[0]["steps"][0], thin[0]["steps"][-1], len(thin[0]["steps"])) == (1, 100, 5)
    text = api.client.get(f"/v1/jobs/{job}/metrics?series=loss&format=csv").text.splitlines()
    assert text[:2] == ["series,step,value", "loss,1,0.5"] and len(text) == 101
