"""F1 to F3, F27: the API dies at any point, for a moment or for long."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.faults.invariants import check
from tests.faults.rig import LEASE, Rig

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "after_reply"])
def test_f1_an_api_that_dies_around_a_commit_makes_one_job_of_one_key(rig: Rig, point: str) -> None:
    armed = rig.folder / "armed"
    rig.kill_api()
    rig.start_api("tests.faults.crashing_api", FAULT_POINT=point, FAULT_ARMED=str(armed))
    armed.touch()
    first = rig.client.ask("POST", "/v1/jobs", "the-key", json=rig.body())
    assert rig.api is not None and rig.api.wait(20) == 137, "it did not die there"
    assert (first is not None) == (point == "after_reply")
    rig.start_api()
    again = rig.client.ask("POST", "/v1/jobs", "the-key", json=rig.body())
    assert again is not None and again.status_code == 201
    assert (again.headers.get("idempotency-replayed") == "true") == (point != "before_commit")
    if first is not None:
        assert first.content == again.content
    assert rig.wait(again.json()["id"])["status"] == "succeeded"
    check(rig)


@pytest.mark.timeout(1500)
def test_f1_fifty_random_kills_of_the_api_lose_and_double_nothing(rig: Rig) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    draw, stop = random.Random(seed), threading.Event()
    jobs: list[str] = []

    def submit() -> None:
        while not stop.is_set():
            jobs.append(rig.submit(steps=5, delay=0.0))

    senders = [threading.Thread(target=submit, daemon=True) for _ in range(3)]
    for sender in senders:
        sender.start()
    for _ in range(50):
        time.sleep(draw.uniform(0.0, 0.6))
        rig.kill_api()
        rig.start_api()
    stop.set()
    for sender in senders:
        sender.join(60)
    check(rig, 60 + 2 * len(jobs))  # each is a process of its own, one after the other


def test_f2_an_api_that_is_killed_again_and_again_costs_no_lease(patient: Rig) -> None:
    draw, jobs = random.Random(2), [patient.submit(steps=400, delay=0.02)]
    end = time.monotonic() + 30
    while time.monotonic() < end:
        patient.kill_api()
        patient.start_api()
        time.sleep(draw.uniform(2.0, 3.0))  # every outage is shorter than a lease
        jobs.append(patient.submit(steps=5))
    found = [patient.endings(job) for job in jobs]
    assert found == [["succeeded"]] * len(jobs), "a lease was lost though every outage was shorter"
    check(patient)


@pytest.mark.parametrize("outage", [0.0, 5.0])
def test_f3_training_goes_on_while_the_api_is_away_for_less_than_a_lease(patient: Rig, outage: float) -> None:
    job = patient.submit(steps=60, delay=0.05)
    patient.wait_step(job, 8)
    patient.kill_api()
    time.sleep(outage)
    patient.start_api()
    assert patient.endings(job) == ["succeeded"]
    check(patient)


def test_f3_training_fences_itself_and_resumes_when_the_api_was_away_for_longer_than_a_lease(rig: Rig) -> None:
    job = rig.submit(steps=400, delay=0.05)
    rig.wait_step(job, 12)
    rig.kill_api()
    time.sleep(2 * LEASE)
    last = rig.traced()[-1][3]
    assert time.monotonic() - last > LEASE / 2, "it trained on though its lease was over"
    rig.start_api()
    assert len(found := rig.endings(job)) > 1 and found[-1] == "succeeded"
    check(rig)


def test_f27_an_api_killed_while_an_upload_is_completed_shows_no_half_dataset(rig: Rig, tmp_path: Path) -> None:
    rows = b"\n".join(b'{"text": "some words of row %d"}' % n for n in range(60))
    body = {"filename": "pool.jsonl", "bytes": len(rows), "mime_type": "application/jsonl", "purpose": "pretrain"}
    upload = rig.client.insist("POST", "/v1/uploads", json=body).json()["id"]
    part = rig.client.insist("POST", f"/v1/uploads/{upload}/parts", files={"data": ("p", rows)}).json()["id"]
    for point in ("before_commit", "after_commit"):
        rig.kill_api()
        rig.start_api("tests.faults.crashing_api", FAULT_POINT=point, FAULT_ARMED=str(tmp_path / "armed"))
        (tmp_path / "armed").touch()
        rig.client.ask("POST", f"/v1/uploads/{upload}/complete", "done", json={"part_ids": [part]})
        assert rig.api is not None and rig.api.wait(20) == 137
    rig.start_api()
    done = rig.client.insist("POST", f"/v1/uploads/{upload}/complete", json={"part_ids": [part]}).json()
    datasets = rig.client.insist("GET", "/v1/datasets").json()["data"]
    assert [each["id"] for each in datasets].count(done["file"]["id"]) == 1 and len(datasets) == 2
    content = rig.client.insist("GET", f"/v1/files/{done['file']['id']}/content")
    assert content.content == rows
    check(rig)


def test_f23_a_terminated_api_answers_what_it_has_and_leaves_within_its_grace(patient: Rig) -> None:
    job = patient.submit(steps=300, delay=0.05)
    streams = []
    for _ in range(20):
        stream = patient.client.http.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"})
        streams.append((stream, stream.__enter__()))
    began = time.monotonic()
    patient.kill_api(signal.SIGTERM)
    assert time.monotonic() - began < 15 and patient.api is not None and patient.api.returncode == 0
    for stream, _ in streams:
        stream.__exit__(None, None, None)
    patient.start_api()
    assert patient.endings(job) == ["succeeded"]
    check(patient)
