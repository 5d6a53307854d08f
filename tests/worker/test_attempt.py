"""One attempt, with a real engine process (without torch) and a real HTTP door."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.door import StandIn
from tests.worker.harness import InThread, engines, eventually
from worker import engine

Start = Callable[..., InThread]


def test_a_job_runs_and_all_it_made_arrives(door: StandIn, start: Start, tmp_path: Path) -> None:
    job = door.add(inputs={"rows-00000.parquet": b"rows" * 5000, "manifest.json": b"{}"})
    start().join()
    assert job.status == "succeeded" and job.result is not None
    assert job.steps() == list(range(1, 11))
    assert sorted(job.checkpoints) == [5, 10]
    assert [f["path"] for f in job.checkpoints[10]] == ["state.json", "manifest.json"]
    assert job.files["samples/fill.txt"] == b"a text" and job.files["artifact/model.safetensors"] == b"weights"
    assert job.result["summary"]["inputs"] == {"ds_1": ["manifest.json", "rows-00000.parquet"]}
    assert "fake engine in" in job.log


def test_nothing_of_a_finished_attempt_stays_but_the_cache(door: StandIn, start: Start, tmp_path: Path) -> None:
    job = door.add(inputs={"rows-00000.parquet": b"rows"})
    start().join()
    work = tmp_path / "worker"
    assert job.status == "succeeded"
    assert not list((work / "runs").iterdir()) and not list((work / "attempts").iterdir())
    assert [p.read_bytes() for p in (work / "files").rglob("*") if p.is_file()] == [b"rows"]
    assert engines(tmp_path) == []


def test_a_free_slot_goes_on_with_whatever_else_is_queued(door: StandIn, start: Start) -> None:
    jobs = [door.add(f"job_{n}", steps=1) for n in range(3)]
    start().join()
    assert [job.status for job in jobs] == ["succeeded"] * 3


def test_cancel_saves_a_checkpoint_and_releases(door: StandIn, start: Start) -> None:
    job = door.add(steps=1000)
    running = start()
    eventually(lambda: len(job.steps()) > 2)
    job.status, job.command = "cancelling", "cancel"
    running.join()
    assert job.status == "cancelled" and job.releases == ["cancel"]
    assert max(job.checkpoints) == max(job.steps())


def test_cancel_reaches_a_job_whose_inputs_are_still_on_the_way(door: StandIn, start: Start) -> None:
    job = door.add(inputs={"first.parquet": b"first", "second.parquet": b"second"})
    kept, door.blobs, door.missing_status = door.blobs, {}, 503
    running = start()
    eventually(lambda: door.fetched)
    job.command = "cancel"
    seen = job.heartbeats
    eventually(lambda: job.heartbeats > seen + 1)
    door.blobs = kept
    running.join()
    assert job.status == "cancelled" and job.releases == ["cancel"]
    assert len(set(door.fetched)) == 1, "the second file was not asked for"


def test_pause_then_resume_goes_on_from_the_step_it_left(door: StandIn, start: Start) -> None:
    job = door.add(steps=40)
    running = start()
    eventually(lambda: len(job.steps()) > 7)
    job.status, job.command = "pausing", "pause"
    running.join()
    assert job.status == "paused"
    left_at = max(job.steps())
    job.status, job.command = "queued", None
    start().join()
    assert job.status == "succeeded"
    assert job.steps() == list(range(1, 41)), "no step twice, none missing"
    second = [e["step"] for (fence, _), e in job.events.items() if fence == 2 and e["type"] == "metrics"]
    assert min(second) == left_at + 1


def test_an_engine_that_will_not_stop_is_killed_after_the_grace_period(
    door: StandIn, start: Start, tmp_path: Path
) -> None:
    job = door.add(steps=1000, mode="deaf", at=3)
    running = start(grace_seconds=0.5)
    eventually(lambda: len(job.steps()) > 1)
    job.command = "cancel"
    running.join()
    assert job.status == "cancelled" and engines(tmp_path) == []


def test_drain_saves_and_gives_the_job_back(door: StandIn, start: Start) -> None:
    job = door.add(steps=1000)
    running = start()
    eventually(lambda: len(job.steps()) > 2)
    running.supervisor.drain.set()
    running.join()
    assert job.status == "queued" and job.releases == ["drain"]
    assert max(job.checkpoints) == max(job.steps())


def test_events_written_while_the_api_is_away_arrive_once_when_it_is_back(door: StandIn, start: Start) -> None:
    job = door.add(steps=60)
    running = start()
    eventually(lambda: len(job.steps()) > 3)
    door.stop()
    time.sleep(1.2)
    door.start()
    running.join()
    assert job.status == "succeeded" and job.fence == 1
    assert job.steps() == list(range(1, 61))


def test_a_run_whose_events_never_arrive_is_not_completed_with_a_hole_in_its_curve(
    door: StandIn, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    job = door.add(steps=20)
    running = start(report_seconds=1.5)
    eventually(lambda: len(job.steps()) > 3)
    door.deaf_to = "events"
    eventually(lambda: "did not reach the API" in caplog.text)
    assert job.status == "running" and job.result is None and max(job.steps()) < 20
    # As the API does once the lease is over: the next attempt goes on from where nothing is missing.
    running.join()
    door.deaf_to, job.status = "", "queued"
    start().join()
    assert job.status == "succeeded" and sorted(set(job.steps())) == list(range(1, 21))


def test_answers_of_503_are_tried_again(door: StandIn, start: Start) -> None:
    job = door.add(steps=20, inputs={"rows-00000.parquet": b"rows"})
    running = start()
    for _ in range(4):
        door.failing = 2
        time.sleep(0.05)
    running.join()
    assert job.status == "succeeded" and job.steps() == list(range(1, 21))


def test_a_lost_lease_kills_the_engine_and_drops_its_work(door: StandIn, start: Start, tmp_path: Path) -> None:
    job = door.add(steps=1000)
    running = start()
    eventually(lambda: len(job.steps()) > 2)
    job.fence, seen = 2, len(job.events)
    running.join(5)
    assert engines(tmp_path) == []
    assert job.error is None and job.releases == [] and job.result is None and len(job.events) == seen


def test_a_worker_cut_off_from_the_api_fences_itself_before_the_lease_ends(
    door: StandIn, start: Start, tmp_path: Path
) -> None:
    door.lease = 2.0
    job = door.add(steps=10_000)
    start()
    eventually(lambda: len(job.steps()) > 2)
    door.stop()
    cut_at = time.monotonic()
    eventually(lambda: not engines(tmp_path), 10)
    assert time.monotonic() - cut_at < 2.0


def test_a_finished_run_waits_for_an_api_that_is_away_longer_than_the_lease(
    door: StandIn, start: Start, tmp_path: Path
) -> None:
    door.lease = 2.0
    job = door.add(steps=30, delay=0.03)
    running = start()
    eventually(lambda: len(job.steps()) > 12)
    door.stop()
    eventually(lambda: not engines(tmp_path), 5)
    time.sleep(2.2)
    door.start()
    running.join()
    assert job.status == "succeeded" and job.steps() == list(range(1, 31))


def test_a_killed_engine_is_an_infra_failure_that_names_the_signal(door: StandIn, start: Start) -> None:
    job = door.add(mode="crash", at=7)
    job.fence = 2  # the stand-in ends a job at its third loss
    start().join()
    assert job.error == {
        "class": "infra", "code": "engine_killed", "param": None,
        "message": "The training process was killed by signal 9 (Killed) and left no result.",
    }


def test_an_engine_without_a_word_on_a_full_disk_is_told_as_that(
    door: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "NO_ROOM", 1 << 62)
    job = door.add(mode="exit", at=7)
    job.fence = 2  # the stand-in ends a job at its third loss
    start().join()
    assert job.error is not None and (job.error["class"], job.error["code"]) == ("infra", "disk_full")


def test_after_a_crash_the_next_attempt_goes_on_from_the_last_checkpoint(door: StandIn, start: Start) -> None:
    job = door.add(mode="crash", at=7, steps=12)
    start().join()
    assert job.status == "succeeded" and job.fence == 2
    second = [e["step"] for (fence, _), e in sorted(job.events.items()) if fence == 2 and e["type"] == "metrics"]
    assert second == list(range(6, 13))


def test_an_engine_that_exits_without_a_result_is_told_by_its_status(door: StandIn, start: Start) -> None:
    job = door.add(mode="exit", at=2)
    job.fence = 2
    start().join()
    assert job.error is not None and "exit status 7" in job.error["message"]


def test_what_the_engine_says_of_a_users_error_is_passed_on(door: StandIn, start: Start) -> None:
    job = door.add(mode="user_error")
    start().join()
    assert job.status == "failed"
    assert job.error == {
        "class": "user", "code": "bad_rate", "message": "learning_rate is too high", "param": "learning_rate",
    }


def test_bad_event_lines_are_dropped_and_the_gap_is_told(door: StandIn, start: Start) -> None:
    job = door.add(mode="malformed", at=4)
    start().join()
    assert job.status == "succeeded" and job.steps() == list(range(1, 11))
    told = [e for e in job.events.values() if e["type"] == "message"]
    assert [e["code"] for e in told] == ["events_dropped"]


def test_a_run_without_progress_is_dumped_and_killed(door: StandIn, start: Start) -> None:
    job = door.add(mode="hang", at=3)
    job.fence = 2
    start(stall_seconds=0.7).join()
    assert job.error is not None and job.error["code"] == "engine_stalled"
    assert "Current thread" in job.log and "misbehave" in job.log


def test_a_process_the_engine_left_in_another_session_dies_with_the_run(
    door: StandIn, start: Start, tmp_path: Path
) -> None:
    job = door.add(mode="stray", at=2)
    start().join()
    assert job.status == "succeeded" and engines(tmp_path) == []


def test_a_flood_of_output_is_cut_and_may_be_binary(door: StandIn, start: Start) -> None:
    job = door.add(mode="flood", at=2)
    start(max_log_bytes=100_000).join()
    assert job.status == "succeeded"
    assert len(job.log.encode()) < 400_000 and job.log.endswith("[the rest of the output is not kept]\n")


def test_the_engine_sees_no_credentials(door: StandIn, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "GROUNDWORK_WORKER_TOKEN", "GROUNDWORK_SECRET_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = door.add(steps=1)
    start().join()
    seen = job.log.split("sees ")[1]
    assert "OMP_NUM_THREADS" in seen
    assert not [word for word in ("SECRET", "TOKEN", "PASSWORD", "AWS") if word in seen]


def test_an_artifact_that_does_not_match_its_manifest_fails_the_job(door: StandIn, start: Start) -> None:
    job = door.add(mode="bad_artifact")
    job.fence = 2
    start().join()
    assert job.error is not None and job.error["code"] == "bad_artifact"
    assert "model.safetensors" in job.error["message"]


def test_an_input_that_is_gone_fails_the_job_and_names_the_reason(door: StandIn, start: Start) -> None:
    job = door.add(inputs={"rows-00000.parquet": b"rows"})
    job.fence = 2
    door.blobs.clear()
    start().join()
    assert job.error is not None and job.error["code"] == "input_unavailable" and "404" in job.error["message"]


def test_a_supervisor_stopped_past_its_lease_kills_the_engine_when_it_wakes(
    door: StandIn, spawn: Callable[..., object], tmp_path: Path
) -> None:
    door.lease = 1.0
    job = door.add(steps=10_000)
    worker = spawn()
    eventually(lambda: len(job.steps()) > 2)
    pid = worker.process.pid  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.2)
    job.fence, job.status = 2, "running"  # someone else took it over
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: not engines(tmp_path), 3)
    assert job.error is None and job.releases == []
