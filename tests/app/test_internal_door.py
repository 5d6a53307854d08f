"""The worker's door over HTTP: tokens, fences, callbacks that come twice or late, files."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.jobs.tables import Job
from app.platform import session_scope
from tests.app.conftest import SECRETS, Api
from tests.app.jobs_world import (
    Worker,
    bearer,
    entry,
    message_event,
    metrics_event,
    pretrain_body,
    progress_event,
    ready_dataset,
)


@pytest.fixture
def worker(api: Api) -> Worker:
    """A worker at the door."""
    return Worker(api.anonymous)


def submit(api: Api, **more: Any) -> str:
    """A queued job's id."""
    reply = api.client.post("/v1/jobs", json=pretrain_body(ready_dataset(api.platform, api.project_id), **more))
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def started(api: Api, worker: Worker, job_id: str | None = None) -> dict[str, Any]:
    """The ticket of a running job."""
    ticket = worker.claim(job_id or submit(api))
    assert ticket is not None
    return ticket


def status(api: Api, ticket: dict[str, Any]) -> str:
    """Where the job stands."""
    return str(api.client.get(f"/v1/jobs/{ticket['job_id']}").json()["status"])


def taken_over(api: Api, worker: Worker, first: dict[str, Any]) -> dict[str, Any]:
    """The ticket of the second attempt, after the first was lost."""
    with session_scope(api.platform) as session:
        session.get_one(Job, first["job_id"]).lease_expires = 0
    from app.jobs import limits, sweeps

    with session_scope(api.platform) as session:
        sweeps.settle(session, first["job_id"], limits.of(api.platform.settings))
    with session_scope(api.platform) as session:
        session.get_one(Job, first["job_id"]).available_at = 0
    return started(api, worker, first["job_id"])


def test_a_ticket_holds_the_resolved_spec_and_files_that_its_token_opens(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert ticket["spec"]["batch_size"] == 32 and ticket["fence"] == 1 and ticket["token"].startswith("gwa_")
    file = ticket["inputs"][0]["files"][0]
    reply = api.anonymous.get(file["url"], headers={**bearer(ticket["token"]), "Range": "bytes=1-2"})
    assert (reply.status_code, reply.content) == (206, b"ow")


def test_a_second_claim_finds_nothing(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert worker.claim(ticket["job_id"]) is None
    assert worker.claim(None) is None


def test_events_sent_three_times_in_any_order_leave_the_same_rows(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    events = [metrics_event(seq, seq, loss=float(seq), rate="nan") for seq in range(1, 13)]
    events += [progress_event(13, 12), message_event(14, "note"), message_event(15, "note")]
    batches = [events[at : at + 3] for at in range(0, 15, 3)] * 3
    random.Random(7).shuffle(batches)
    answers = [worker.post(ticket, "events", events=batch).json()["accepted_seq"] for batch in batches]
    assert max(answers) == answers[-1] == 15
    url = f"/v1/jobs/{ticket['job_id']}"
    series = {each["name"]: each for each in api.client.get(f"{url}/metrics").json()["series"]}
    assert series["loss"]["values"] == [float(step) for step in range(1, 13)]
    assert set(series["rate"]["values"]) == {"nan"}
    codes = [event["code"] for event in api.client.get(f"{url}/events").json()["data"]]
    assert codes.count("note") == 2
    assert api.client.get(url).json()["progress"]["step"] == 12


def test_an_attempt_that_lost_the_job_writes_nothing(api: Api, worker: Worker) -> None:
    first = started(api, worker)
    assert worker.post(first, "events", events=[metrics_event(1, 1, loss=1.0)]).status_code == 200
    second = taken_over(api, worker, first)
    assert second["fence"] == 2
    calls = [
        worker.post(first, "heartbeat"), worker.post(first, "events", events=[metrics_event(2, 1, loss=9.0)]),
        worker.post(first, "logs", offset=0, text="x"), worker.put(first, "artifact/config.json", b"x"),
        worker.post(first, "checkpoints", step=1, files=[entry("a", b"x")]), worker.post(first, "complete", files=[]),
        worker.post(first, "fail", error={"class": "user", "code": "c", "message": "m"}),
        worker.post(first, "release", reason="drain"),
    ]  # fmt: skip
    assert {(reply.status_code, reply.json()["error"]["code"]) for reply in calls} == {(409, "lease_lost")}
    assert worker.post(second, "events", events=[metrics_event(1, 1, loss=2.0)]).status_code == 200
    series = api.client.get(f"/v1/jobs/{first['job_id']}/metrics").json()["series"]
    assert series == [{"name": "loss", "steps": [1], "values": [2.0]}]
    assert status(api, second) == "running"


def test_a_stolen_fence_number_does_not_help_an_old_token(api: Api, worker: Worker) -> None:
    first = started(api, worker)
    taken_over(api, worker, first)
    assert worker.post({**first, "fence": 2}, "heartbeat").status_code == 409


def test_a_token_opens_its_own_job_and_nothing_else(api: Api, worker: Worker) -> None:
    mine, other = started(api, worker), started(api, worker)
    verbs = {
        "heartbeat": {}, "events": {"events": []}, "logs": {"offset": 0, "text": ""}, "complete": {"files": []},
        "checkpoints": {"step": 1, "files": [entry("a", b"")]}, "release": {"reason": "drain"},
        "fail": {"error": {"class": "user", "code": "c", "message": "m"}},
    }  # fmt: skip
    crossed = {**other, "token": mine["token"]}
    assert {worker.post(crossed, verb, **body).status_code for verb, body in verbs.items()} == {404}
    assert worker.put(crossed, "artifact/a", b"").status_code == 404
    assert api.anonymous.get(other["inputs"][0]["files"][0]["url"], headers=bearer(mine["token"])).status_code == 404
    claim = {"queue": "cpu", "worker": {"name": "w", "host": "h", "pid": 1}}
    assert api.anonymous.post("/internal/v1/claim", json=claim, headers=bearer(mine["token"])).status_code == 403
    assert worker.post({**mine, "token": SECRETS["worker_token"]}, "heartbeat").status_code == 403
    for method, path in [("GET", "/v1/jobs"), ("POST", f"/v1/jobs/{mine['job_id']}/cancel"), ("GET", "/v1/models")]:
        assert api.anonymous.request(method, path, headers=bearer(mine["token"])).status_code in (401, 403)
    assert api.client.post("/internal/v1/claim", json=claim).status_code == 401
    assert status(api, mine) == status(api, other) == "running"


def test_an_unknown_token_and_none_are_told_apart_from_a_lost_lease(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert worker.post({**ticket, "token": "gwa_unknown"}, "heartbeat").status_code == 404
    assert api.anonymous.post(f"/internal/v1/jobs/{ticket['job_id']}/heartbeat", json={"fence": 1}).status_code == 401


def test_a_success_makes_a_model_and_is_idempotent(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert worker.complete(ticket).json() == {"status": "succeeded"}
    files = [entry(path, b"bytes") for path in ("config.json", "model.safetensors")]
    again = worker.post(ticket, "complete", files=files, metrics={}, summary={})
    assert (again.status_code, again.json()) == (200, {"status": "succeeded"})
    assert worker.post(ticket, "heartbeat").status_code == 409
    job = api.client.get(f"/v1/jobs/{ticket['job_id']}").json()
    assert job["finished_at"] and job["attempts"][0]["outcome"] == "succeeded"
    assert api.client.get(f"/v1/models/{job['result']['model']}").status_code == 200
    assert len(api.client.get("/v1/models").json()["data"]) == 1


def test_a_late_success_after_a_cancel_ends_cancelled(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert api.client.post(f"/v1/jobs/{ticket['job_id']}/cancel").status_code == 202
    assert worker.post(ticket, "heartbeat").json()["command"] == "cancel"
    assert worker.complete(ticket).json() == {"status": "cancelled"}
    assert status(api, ticket) == "cancelled"
    assert api.client.get("/v1/models").json()["data"] == []


def test_a_result_needs_every_file_to_be_up(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert worker.put(ticket, "artifact/config.json", b"bytes").status_code == 201
    refused = worker.post(ticket, "complete", files=[entry("config.json", b"other")], metrics={}, summary={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "file_missing")
    assert refused.json()["error"]["param"] == "files.0"
    assert status(api, ticket) == "running"


def test_a_file_is_taken_once_and_only_with_its_own_digest(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert worker.put(ticket, "samples/a.png", b"png").status_code == 201
    assert worker.put(ticket, "samples/a.png", b"png").status_code == 200
    wrong = worker.put(ticket, "samples/b.png", b"png", **{"X-Content-SHA256": "0" * 64})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "digest_mismatch")
    for path in ("a/%2e%2e/b", ".hidden", "a//b", "ä"):
        assert worker.put(ticket, path, b"x").status_code in (404, 422), path


def test_the_newest_checkpoints_are_kept_and_offered_newest_first(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    ids = [worker.checkpoint(ticket, step, b"w%d" % step).json()["id"] for step in (10, 20, 30, 40)]
    assert worker.checkpoint(ticket, 40, b"w40").json()["id"] == ids[-1]
    again = taken_over(api, worker, ticket)
    assert [each["step"] for each in again["checkpoints"]] == [40, 30, 20]
    newest = again["checkpoints"][0]["files"][0]
    assert api.anonymous.get(newest["url"], headers=bearer(again["token"])).content == b"w40"
    listed = api.client.get(f"/v1/jobs/{ticket['job_id']}/checkpoints").json()["data"]
    assert [each["step"] for each in listed] == [40, 30, 20]


def test_points_beyond_the_resume_step_are_superseded(api: Api, worker: Worker) -> None:
    first = started(api, worker)
    worker.checkpoint(first, 10)
    worker.post(first, "events", events=[metrics_event(seq, seq, loss=1.0) for seq in range(1, 16)])
    second = taken_over(api, worker, first)
    worker.post(second, "events", events=[message_event(1, "resumed", 10), metrics_event(2, 11, loss=2.0)])
    series = api.client.get(f"/v1/jobs/{first['job_id']}/metrics").json()["series"][0]
    assert series["steps"] == [*range(1, 11), 11] and series["values"] == [1.0] * 10 + [2.0]


def test_without_a_word_the_checkpoint_below_the_first_point_counts(api: Api, worker: Worker) -> None:
    first = started(api, worker)
    worker.checkpoint(first, 10)
    worker.post(first, "events", events=[metrics_event(seq, seq, loss=1.0) for seq in range(1, 16)])
    second = taken_over(api, worker, first)
    worker.post(second, "events", events=[metrics_event(1, 12, loss=2.0)])
    series = api.client.get(f"/v1/jobs/{first['job_id']}/metrics").json()["series"][0]
    assert series["steps"] == [*range(1, 11), 12]


def test_logs_keep_their_place(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    assert worker.post(ticket, "logs", offset=0, text="grün\x00\n").status_code in (200, 422)
    after = worker.post(ticket, "logs", offset=0, text="eins\n").json()["next_offset"]
    assert worker.post(ticket, "logs", offset=0, text="eins\n").json()["next_offset"] == after
    worker.post(ticket, "logs", offset=after, text="zwei\n")
    piece = api.client.get(f"/v1/jobs/{ticket['job_id']}/logs").json()
    assert piece["text"].endswith("zwei\n") and piece["text"].count("eins") <= 1


def test_a_sample_is_listed_and_its_file_served(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    event = {"seq": 1, "time": 0.0, "type": "sample", "step": 3, "name": "fill", "path": "samples/fill.txt",
             "media_type": "text/plain", "caption": "c"}  # fmt: skip
    worker.put(ticket, "samples/fill.txt", b"filled")
    assert worker.post(ticket, "events", events=[event]).status_code == 200
    listed = api.client.get(f"/v1/jobs/{ticket['job_id']}/samples").json()["data"]
    assert [each["name"] for each in listed] == ["fill"]
    reply = api.client.get(listed[0]["content_url"])
    assert (reply.content, reply.headers["x-content-type-options"]) == (b"filled", "nosniff")


@pytest.mark.parametrize(
    ("event", "param"),
    [
        (metrics_event(1, -1, loss=1.0), "step"),
        (metrics_event(1, 2**40, loss=1.0), "step"),
        (metrics_event(1, 1, **{"x" * 101: 1.0}), "values"),
        (metrics_event(1, 1, loss="NaN"), "values"),
        (message_event(0, "note"), "seq"),
        ({"seq": 0, "time": 0.0, "type": "stage", "stage": "training"}, "events.0.seq"),
        ({"time": 0.0, "type": "stage", "stage": "training"}, "events.0.seq"),
        ({"seq": 1, "time": 0.0, "type": "stage", "stage": "resting"}, "events.0.stage"),
        ({"seq": 1, "time": 0.0, "type": "stage"}, "events.0.stage"),
        ({"seq": 1, "time": 0.0, "type": "stage", "stage": "training", "x": 1}, "events.0.x"),
        ({"seq": 1, "time": 0.0, "type": "invented"}, "events"),
    ],
)
def test_a_malformed_event_is_refused_and_named(api: Api, worker: Worker, event: Any, param: str) -> None:
    reply = worker.post(started(api, worker), "events", events=[event])
    assert reply.status_code == 422 and param in reply.json()["error"]["param"]


def test_floods_are_refused(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    many = [metrics_event(seq, seq, loss=1.0) for seq in range(1, 1002)]
    assert worker.post(ticket, "events", events=many).status_code == 422
    wide = [metrics_event(seq, 1, **{f"s{seq}_{at}": 1.0 for at in range(200)}) for seq in range(1, 7)]
    refused = worker.post(ticket, "events", events=wide)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "too_many_series")
    assert worker.post(ticket, "logs", offset=0, text="x" * 1_000_001).status_code == 413
    assert worker.post(ticket, "events", events=[metrics_event(1, 1, loss=1.0)]).json() == {"accepted_seq": 1}


def test_training_counts_its_own_steps_and_later_stages_keep_them(api: Api, worker: Worker) -> None:
    ticket = started(api, worker)
    url = f"/v1/jobs/{ticket['job_id']}"

    def shown(*events: dict[str, Any]) -> tuple[str, int]:
        worker.post(ticket, "events", events=list(events))
        progress = api.client.get(url).json()["progress"]
        return progress["stage"], progress["step"]

    preparing = {**progress_event(1, 300, total=300), "stage": "preparing"}
    assert shown(preparing) == ("preparing", 300)
    assert shown({"seq": 2, "time": 0.0, "type": "stage", "stage": "training"}) == ("training", 0)
    assert shown(progress_event(3, 7)) == ("training", 7)
    assert shown({"seq": 4, "time": 0.0, "type": "stage", "stage": "exporting"}) == ("exporting", 7)
