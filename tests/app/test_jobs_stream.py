"""A job live: what comes, in which order, how soon, and where a broken stream goes on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2

from app.jobs.turns import Wanted
from app.platform import Platform
from tests.app.conftest import SECRETS, Api, LiveApi
from tests.app.jobs_world import Worker, metrics_event, pretrain_body, progress_event, ready_dataset

LIVE = {"Accept": "text/event-stream"}


def frames(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events as dicts of their fields."""
    frame: dict[str, str] = {}
    for line in lines:
        if not line and frame:
            yield frame
            frame = {}
        elif ":" in line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value


def finished(api: Api) -> str:
    """A job that has succeeded."""
    job = api.client.post("/v1/jobs", json=pretrain_body(ready_dataset(api.platform, api.project_id))).json()["id"]
    worker = Worker(api.anonymous)
    ticket = worker.claim(job)
    assert ticket is not None
    worker.post(ticket, "events", events=[metrics_event(1, 4, loss=2.0), progress_event(2, 4)])
    assert worker.complete(ticket).json()["status"] == "succeeded"
    return str(job)


def test_the_stream_of_an_ended_job_tells_everything_and_closes(api: Api) -> None:
    job = finished(api)
    with api.client.stream("GET", f"/v1/jobs/{job}/events", headers=LIVE) as reply:
        found = list(frames(reply.iter_lines()))
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert [frame["event"] for frame in found] == ["job.event"] * 3 + ["progress", "done"]
    assert [json.loads(frame["data"])["code"] for frame in found[:3]] == ["queued", "running", "succeeded"]
    assert json.loads(found[3]["data"])["metrics"] == {"loss": 2.0}
    assert json.loads(found[-1]["data"]) == {"status": "succeeded"}


def test_a_stream_goes_on_after_the_last_event_it_delivered(api: Api) -> None:
    job = finished(api)
    events = api.client.get(f"/v1/jobs/{job}/events?order=asc").json()["data"]
    resume = {**LIVE, "Last-Event-ID": events[1]["id"]}
    with api.client.stream("GET", f"/v1/jobs/{job}/events", headers=resume) as reply:
        ids = [frame["id"] for frame in frames(reply.iter_lines()) if "id" in frame]
    assert ids == [events[2]["id"]]


def test_an_event_id_of_another_job_is_refused(api: Api) -> None:
    first, second = finished(api), finished(api)
    foreign = api.client.get(f"/v1/jobs/{second}/events").json()["last_id"]
    reply = api.client.get(f"/v1/jobs/{first}/events", headers={**LIVE, "Last-Event-ID": foreign})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_cursor")


def test_a_foreign_job_has_no_stream(api: Api) -> None:
    job = finished(api)
    assert api.stranger.get(f"/v1/jobs/{job}/events", headers=LIVE).status_code == 404


def test_many_streams_hear_of_a_change_at_once_and_hold_no_connection(live_api: LiveApi) -> None:
    platform = Platform.open(live_api.settings)
    project = live_api.client.get("/v1/projects").json()["data"][-1]["id"]
    job = live_api.client.post("/v1/jobs", json=pretrain_body(ready_dataset(platform, project))).json()["id"]
    platform.close()
    heard: list[float] = []
    ready = threading.Barrier(31)

    def listen() -> None:
        client = httpx2.Client(base_url=live_api.url, headers=live_api.client.headers, timeout=30)
        with client, client.stream("GET", f"/v1/jobs/{job}/events", headers=LIVE) as reply:
            stream = frames(reply.iter_lines())
            next(stream)
            ready.wait()
            heard.extend(time.monotonic() for frame in stream if frame["event"] == "done")

    threads = [threading.Thread(target=listen) for _ in range(30)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.monotonic()
    assert live_api.client.get(f"/v1/jobs/{job}").status_code == 200
    assert time.monotonic() - began < 10, "polls are not in the way of waiting streams"
    began = time.monotonic()
    assert live_api.client.post(f"/v1/jobs/{job}/cancel").status_code == 202
    for thread in threads:
        thread.join(timeout=20)
    assert len(heard) == 30 and max(heard) - began < 5


def test_a_stream_hears_what_another_process_committed(live_api: LiveApi) -> None:
    from app.jobs import attempts
    from app.platform import session_scope
    from tests.app.jobs_world import LIMITS, WORKER

    platform = Platform.open(live_api.settings)
    project = live_api.client.get("/v1/projects").json()["data"][-1]["id"]
    job = live_api.client.post("/v1/jobs", json=pretrain_body(ready_dataset(platform, project))).json()["id"]
    with live_api.client.stream("GET", f"/v1/jobs/{job}/events", headers=LIVE) as reply:
        stream = frames(reply.iter_lines())
        next(stream)
        began = time.monotonic()
        with session_scope(platform) as session:
            assert attempts.claim(session, Wanted(job, "cpu"), WORKER, LIMITS) is not None
        found: dict[str, Any] = next(stream)
        assert json.loads(found["data"])["code"] == "running" and time.monotonic() - began < 5
    platform.close()
    assert SECRETS["worker_token"] not in live_api.log.read_text()
