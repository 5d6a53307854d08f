"""Slots and bells, in one process."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.worker.door import StandIn
from tests.worker.harness import eventually, settings
from worker.supervisor import Supervisor


def supervisor(door: StandIn, folder: Path, slots: int = 1) -> Supervisor:
    return Supervisor(settings(door, folder, slots=slots))


def test_a_bell_for_a_job_that_is_gone_is_answered_in_milliseconds(door: StandIn, tmp_path: Path) -> None:
    bell = supervisor(door, tmp_path)
    bell.ring("job_none")
    began = time.perf_counter()
    for _ in range(20):
        assert bell.ring("job_none") == 0
    assert (time.perf_counter() - began) / 20 < 0.05


def test_bells_while_every_slot_is_taken_return_at_once_and_start_nothing(door: StandIn, tmp_path: Path) -> None:
    job, bell = door.add(steps=60), supervisor(door, tmp_path)
    running = threading.Thread(target=bell.ring, args=(job.id,))
    running.start()
    eventually(lambda: job.steps())
    began = time.perf_counter()
    for _ in range(100):
        assert bell.ring(job.id) == 0
    assert (time.perf_counter() - began) / 100 < 0.05
    running.join(20)
    assert job.status == "succeeded" and job.fence == 1


def test_a_bell_that_rings_just_as_the_queue_is_found_empty_is_heard(door: StandIn, tmp_path: Path) -> None:
    bell = supervisor(door, tmp_path)
    door.lock.acquire()  # the claim below waits for its answer
    asking = threading.Thread(target=bell.ring, args=("job_gone",))
    asking.start()
    eventually(lambda: not bell._slots[0].free._value)  # type: ignore[attr-defined]
    assert bell.ring("job_1") == 0, "the only slot is asking"
    door.lock.release()
    job = door.add("job_1", steps=1)
    asking.join(20)
    assert job.status == "succeeded"


def test_two_slots_run_two_jobs_side_by_side(door: StandIn, tmp_path: Path) -> None:
    jobs, bell = [door.add(f"job_{n}", steps=60) for n in (1, 2)], supervisor(door, tmp_path, slots=2)
    threads = [threading.Thread(target=bell.ring, args=(job.id,)) for job in jobs]
    for thread in threads:
        thread.start()
    eventually(lambda: all(job.steps() and job.status == "running" for job in jobs))
    for thread in threads:
        thread.join(20)
    assert [job.status for job in jobs] == ["succeeded"] * 2


def test_an_upload_waits_for_no_training(door: StandIn, tmp_path: Path) -> None:
    training, bell = door.add("job_1", steps=200), supervisor(door, tmp_path)
    running = threading.Thread(target=bell.ring, args=(training.id,))
    running.start()
    eventually(lambda: training.steps())
    other = door.add("job_2", steps=1)
    ingest = door.add("job_3", type="ingest", steps=1)
    assert bell.ring(other.id) == 0, "the bell was for a training, which waits"
    assert bell.ring(ingest.id) == 1
    assert (training.status, other.status, ingest.status) == ("running", "queued", "succeeded")
    ingests = [door.add(f"job_{n}", type="ingest", steps=40) for n in (4, 5)]
    short = threading.Thread(target=bell.ring, args=(ingests[0].id,))
    short.start()
    eventually(lambda: ingests[0].status == "running")
    assert bell.ring(ingests[1].id) == 0, "there is one short slot"
    short.join(30)
    assert [job.status for job in ingests] == ["succeeded"] * 2, "who holds it looks for more"
    running.join(40)
    assert [training.status, other.status] == ["succeeded"] * 2


def test_a_worker_without_short_slots_does_one_thing_at_a_time(door: StandIn, tmp_path: Path) -> None:
    training, bell = door.add("job_1", steps=60), Supervisor(settings(door, tmp_path, short_slots=0))
    running = threading.Thread(target=bell.ring, args=(training.id,))
    running.start()
    eventually(lambda: training.steps())
    ingest = door.add("job_2", type="ingest", steps=1)
    assert bell.ring(ingest.id) == 0 and ingest.status == "queued"
    running.join(30)
    assert ingest.status == "succeeded"


def test_a_draining_worker_claims_nothing(door: StandIn, tmp_path: Path) -> None:
    job, bell = door.add(), supervisor(door, tmp_path)
    bell.drain.set()
    assert bell.ring(job.id) == 0 and job.status == "queued"


def test_a_failed_claim_costs_nothing_but_time(door: StandIn, tmp_path: Path) -> None:
    job, bell = door.add(steps=1), supervisor(door, tmp_path)
    door.failing = 3
    assert bell.ring(job.id) == 1 and job.status == "succeeded"
