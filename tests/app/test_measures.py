"""What Prometheus is told of jobs, queues, leases and datasets, and what the log says of a job's steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.jobs import transitions
from app.jobs.tables import Job
from app.platform import session_scope
from tests.app.conftest import Api, make_settings, serve
from tests.app.jobs_world import LIMITS, Worker, make_job, ready_dataset


def measured(api: Api) -> dict[tuple[str, ...], float]:
    """(name, values of its labels in the order of their names) -> value, of one scrape."""
    families = text_string_to_metric_families(api.anonymous.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, *(s.labels[name] for name in sorted(s.labels))): s.value for s in samples}


def two_jobs(api: Api) -> list[str]:
    dataset = ready_dataset(api.platform, api.project_id)
    with session_scope(api.platform) as session:
        return [make_job(session, api.project_id, dataset).id for _ in range(2)]


def test_jobs_queues_and_leases_are_counted_in_the_database(api_everywhere: Api) -> None:
    api = api_everywhere
    first, _ = two_jobs(api)
    assert Worker(api.anonymous).claim(first) is not None
    found = measured(api)
    assert found["groundwork_jobs", "cpu", "queued", "pretrain"] == 1
    assert found["groundwork_jobs", "cpu", "running", "pretrain"] == 1
    assert found["groundwork_queue_jobs", "cpu"] == 2 and found["groundwork_queue_jobs", "gpu"] == 0
    assert found["groundwork_leases", "live"] == 1 and found["groundwork_leases", "expired"] == 0
    assert found["groundwork_datasets", "ready"] == 1 and found["groundwork_dataset_rows", "good"] == 1000
    assert found[("groundwork_database_up",)] == 1


def test_a_lease_that_ran_out_and_a_queue_that_waits_show(api_everywhere: Api) -> None:
    api = api_everywhere
    first, second = two_jobs(api)
    Worker(api.anonymous).claim(first)
    with session_scope(api.platform) as session:
        session.get_one(Job, first).lease_expires = 1
        session.get_one(Job, second).available_at -= 90_000
        session.flush()
    found = measured(api)
    # The reaper holds still for a lease after its start, so the dead lease is still there.
    assert found["groundwork_leases", "live"] == 0 and found["groundwork_leases", "expired"] == 1
    assert 90 <= found["groundwork_queue_oldest_seconds", "cpu"] < 120


def test_a_job_that_is_paused_wants_no_worker(api: Api) -> None:
    first, _ = two_jobs(api)
    assert api.client.post(f"/v1/jobs/{first}/pause").status_code in (200, 202)
    assert measured(api)["groundwork_queue_jobs", "cpu"] == 1


def test_steps_and_ends_of_attempts_are_counted_once_they_are_committed(api: Api) -> None:
    job = two_jobs(api)[0]
    before = measured(api)
    worker = Worker(api.anonymous)
    ticket = worker.claim(job)
    assert ticket is not None
    with pytest.raises(RuntimeError), session_scope(api.platform) as session:
        row = session.get_one(Job, job)
        transitions.cancel(session, row, LIMITS)
        raise RuntimeError("rolled back")
    error = {"class": "user", "code": "bad", "message": "no", "param": None}
    assert worker.post(ticket, "fail", error=error).status_code == 200
    after = measured(api)

    def rose(*name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert rose("groundwork_job_moves_total", "queued", "running", "pretrain") == 1
    assert rose("groundwork_job_moves_total", "running", "failed", "pretrain") == 1
    assert rose("groundwork_job_moves_total", "running", "cancelling", "pretrain") == 0
    assert rose("groundwork_attempts_total", "failed", "pretrain") == 1
    assert rose("groundwork_job_seconds_count", "failed", "pretrain") == 1


def test_bytes_that_reach_the_store_are_counted(api: Api) -> None:
    before = measured(api)[("groundwork_stored_bytes_total",)]
    api.platform.store.put("datasets/ds_1/upload", b"x" * 1234)
    assert measured(api)[("groundwork_stored_bytes_total",)] - before == 1234


def test_the_process_still_tells_its_own_numbers_while_the_database_is_away(api: Api) -> None:
    Path(api.platform.settings.database.removeprefix("sqlite:///")).write_bytes(b"not a database at all " * 500)
    api.platform.engine.dispose()
    found = measured(api)
    assert found[("groundwork_database_up",)] == 0
    assert ("groundwork_queue_jobs", "cpu") not in found
    assert any(name[0] == "groundwork_http_requests_total" for name in found)


def test_a_step_of_a_job_is_a_log_line_with_its_id_and_the_requests(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for api in serve(make_settings(sqlite_url, tmp_path, log_level="INFO")):
        job = two_jobs(api)[0]
        answer = api.client.post(f"/v1/jobs/{job}/cancel")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
        (line,) = [line for line in lines if line["event"] == "job_moved"]
        assert line["job_id"] == job and line["target"] == "cancelled" and line["source"] == "queued"
        assert line["request_id"] == answer.headers["x-request-id"]
