"""F7 to F11: the broker and the database die, come back empty, or are held by someone else."""

from __future__ import annotations

import sqlite3
import threading
import time

import psycopg
import pytest
from celery import Celery
from kombu import Connection

from tests.faults.invariants import check
from tests.faults.rig import Rig, later

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def flush(rig: Rig) -> None:
    """FLUSHALL."""
    with Connection(rig.valkey.url) as connection:
        connection.default_channel.client.flushall()


@pytest.mark.parametrize("fault", ["kill", "flush"])
def test_f7_jobs_end_though_the_broker_dies_or_forgets_while_they_wait_and_run(patient: Rig, fault: str) -> None:
    running = patient.submit(steps=120, delay=0.05)
    patient.wait_step(running, 5)
    waiting = [patient.submit(steps=5) for _ in range(3)]
    if fault == "flush":
        flush(patient)
    else:
        patient.valkey.kill()
        waiting.append(patient.submit(steps=5))  # 201 without a broker
        time.sleep(2)
        patient.valkey.start()
    assert [patient.wait(job)["status"] for job in waiting] == ["succeeded"] * len(waiting)
    assert patient.endings(running) == ["succeeded"]
    check(patient)


def test_f8_api_and_worker_start_without_a_broker_and_hear_it_when_it_comes(rig: Rig) -> None:
    rig.kill_worker()
    rig.kill_api()
    rig.valkey.kill()
    rig.start_api()
    rig.start_worker()
    ready = rig.client.http.get("/readyz")
    assert ready.status_code == 200 and ready.json()["parts"]["broker"]["status"] == "degraded"
    assert rig.wait(rig.submit(steps=5))["status"] == "succeeded"
    rig.valkey.start()
    assert rig.wait(rig.submit(steps=5))["status"] == "succeeded"
    assert rig.client.http.get("/readyz").json()["parts"]["broker"]["status"] == "ok"
    check(rig)


@pytest.mark.parametrize("rig", ["postgresql"], indirect=True)
@pytest.mark.parametrize("fault", ["kill", "terminate"])
def test_f9_a_database_that_is_killed_or_drops_everybody_leaves_no_half_batch(rig: Rig, fault: str) -> None:
    assert rig.postgres is not None
    job = rig.submit(steps=150, delay=0.05)
    rig.wait_step(job, 10)
    for _ in range(3):
        if fault == "kill":
            rig.postgres.kill()
            assert rig.client.ask("POST", "/v1/jobs", json=rig.body()).status_code == 503  # type: ignore[union-attr]
            rig.postgres.start()
        else:
            with psycopg.connect(rig.postgres._address("postgres"), autocommit=True) as operator:
                operator.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname LIKE 't%'"
                )
        rig.submit(steps=3)
        time.sleep(0.5)
    assert rig.wait(job)["status"] == "succeeded"
    check(rig)


def test_f10_a_writer_that_holds_the_lock_costs_a_wait_or_a_503_and_no_500(embedded: Rig) -> None:
    job = embedded.submit(steps=100, delay=0.05)
    embedded.wait_step(job, 5)
    holder = sqlite3.connect(embedded.folder / "groundwork.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    later(7, lambda: holder.execute("ROLLBACK"))
    refused = embedded.client.ask("POST", "/v1/jobs", json=embedded.body())
    assert refused is not None and refused.status_code == 503 and "locked" not in refused.text
    assert embedded.client.job(job)["status"] == "running", "reads go on"
    assert embedded.wait(embedded.submit(steps=5))["status"] == "succeeded"
    holder.close()
    check(embedded)


def test_f11_a_hundred_bells_for_jobs_in_every_state_make_one_attempt_each(patient: Rig) -> None:
    done = patient.submit(steps=3)
    patient.wait(done)
    running, queued = patient.submit(steps=100, delay=0.03), patient.submit(steps=3)
    patient.wait_step(running, 3)
    with Celery(broker=patient.valkey.url, set_as_current=False) as bell:
        for job in (done, running, queued, "job_that_never_was"):
            for _ in range(100):
                bell.send_task("groundwork.ring", args=[job], queue="cpu", ignore_result=True)
    assert [patient.endings(job) for job in (running, queued)] == [["succeeded"]] * 2
    check(patient)


def test_f12_a_thousand_races_for_one_job_have_one_winner_each(rig: Rig) -> None:
    from app.jobs import attempts, limits
    from app.jobs.transitions import Wanted
    from app.platform import session_scope
    from tests.app.jobs_world import WORKER, make_job

    rig.kill_worker()
    numbers, rounds, racers = limits.of(rig.settings), 250, 4
    with session_scope(rig.platform) as session:
        jobs = [make_job(session, rig.project, rig.dataset).id for _ in range(rounds)]
    start, winners = threading.Barrier(racers), [0] * rounds

    def race() -> None:
        for index, job in enumerate(jobs):
            start.wait()
            with session_scope(rig.platform) as session:
                won = attempts.claim(session, Wanted(job, "cpu"), WORKER, numbers)
            winners[index] += won is not None  # only one thread can come here for one job, or the test fails

    threads = [threading.Thread(target=race) for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert winners == [1] * rounds
