"""Jobs from the command line, run by a worker at the real door: submit, watch, steer, look at what was made."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from tests.app.jobs_world import message_event, metrics_event, progress_event
from tests.faults.proxy import Proxy
from tests.groundwork.commanding import Desk, Shell, desk, in_terminal, read_until

__all__ = ["desk"]
STEPS = 5


def work(desk: Desk, job: str, steps: int = STEPS, ending: str = "complete") -> None:
    """A whole run, told to the end."""
    worker = desk.world.worker
    ticket = worker.claim(job)
    assert ticket is not None
    events: list[dict[str, Any]] = [message_event(1, "hello")]
    for step in range(1, steps + 1):
        seq = 1 + 2 * step
        events += [progress_event(seq - 1, step, steps), metrics_event(seq, step, **{"train/loss": 10.0 / step})]
    assert worker.post(ticket, "events", events=events).status_code == 200
    worker.post(ticket, "logs", offset=0, text="preparing\ntraining \x1b[31m\n")
    assert worker.checkpoint(ticket, steps).status_code == 201
    if ending == "complete":
        assert worker.complete(ticket).status_code == 200
    else:
        error = {"class": "data", "code": "decode_error", "message": "row 7 is broken", "param": "pool.txt:7"}
        assert worker.post(ticket, "fail", error=error).status_code == 200


def test_a_job_is_submitted_shown_and_listed(desk: Desk) -> None:
    words = desk.shell.says("jobs", "submit", "--dataset", desk.world.dataset(), "--objective", "mlm", "--steps", "9")
    job = next(word for word in words.split() if word.startswith("job_"))
    assert f"groundwork jobs watch {job}" in words
    shown = desk.shell.json("jobs", "show", job)
    assert shown["resolved_spec"]["budget"]["steps"] == 9 and shown["type"] == "pretrain"
    assert job in desk.shell.says("jobs", "list", "--status", "queued", "--type", "pretrain")
    assert desk.shell.json("jobs", "list", "--limit", "1")[0]["id"] == job


def test_a_list_can_be_narrowed_by_metadata(desk: Desk) -> None:
    dataset = desk.world.dataset()
    flags = ("--dataset", dataset, "--objective", "mlm", "--metadata", "team=frogs")
    made = desk.shell.json("jobs", "submit", *flags)
    assert [each["id"] for each in desk.shell.json("jobs", "list", "--metadata", "team=frogs")] == [made["id"]]


def test_watch_follows_a_job_in_plain_lines_where_nobody_looks(desk: Desk) -> None:
    job = desk.job()
    watching = desk.shell.start("jobs", "watch", job)
    read_until(watching, "waits for a worker")
    work(desk, job)
    out, err = watching.communicate(timeout=60)
    assert watching.returncode == 0 and err == ""
    assert "loss 2" in out and "5 / 5, 100 %" in out and "The job succeeded." in out
    assert "mdl_" in out and "\x1b" not in out
    assert all(line == line.rstrip() and len(line.split()) > 1 for line in out.splitlines() if line[2:3] == ":")


def test_watch_tells_programs_json_lines_and_the_job_last(desk: Desk) -> None:
    job = desk.job()
    work(desk, job)
    done = desk.shell.run("jobs", "watch", job, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and done.stderr == ""
    assert {line["event"] for line in lines} == {"job.event", "progress", "done", "job"}
    assert lines[-2] == {"event": "done", "data": {"status": "succeeded"}}
    assert lines[-1]["data"]["status"] == "succeeded"


def test_watch_draws_stage_bar_curve_and_events_in_a_terminal(desk: Desk) -> None:
    job = desk.job()
    work(desk, job, steps=40)
    status, screen = in_terminal(desk.shell, "jobs", "watch", job)
    assert status == 0
    assert "training" in screen and "█" in screen and "40 / 40, 100 %" in screen
    assert "10 → 0.25" in screen and "▁" in screen and "The job succeeded." in screen
    assert "mdl_" in screen


def test_a_job_that_fails_is_status_1_and_one_line(desk: Desk) -> None:
    job = desk.job()
    work(desk, job, ending="fail")
    done = desk.shell.run("jobs", "watch", job)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "row 7 is broken (pool.txt:7)" in done.stderr and f"groundwork jobs logs {job}" in done.stderr
    assert "decode_error: row 7 is broken" in desk.shell.says("jobs", "show", job)


def test_ctrl_c_stops_watching_and_never_the_job(desk: Desk) -> None:
    job = desk.job()
    watching = desk.shell.start("jobs", "watch", job)
    read_until(watching, "waits for a worker")
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert err.count("\n") == 1 and f"{job} goes on" in err and f"groundwork jobs cancel {job}" in err
    assert desk.shell.json("jobs", "show", job)["status"] == "queued"


def test_submit_and_watch_in_one(desk: Desk) -> None:
    started = desk.shell.start("pretrain", desk.world.dataset(), "--objective", "mlm", "--watch", "--json")
    first = json.loads(read_until(started, "job.event")[-1])
    assert first["data"]["code"] == "queued"
    job = desk.shell.json("jobs", "list", "--limit", "1")[0]["id"]
    work(desk, job)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 0 and err == f"pretrain job {job}\n"
    assert json.loads(out.splitlines()[-1])["data"]["id"] == job


def test_steering(desk: Desk) -> None:
    job = desk.job()
    assert "paused" in desk.shell.says("jobs", "pause", job)
    assert "queued" in desk.shell.says("jobs", "resume", job)
    assert desk.shell.json("jobs", "cancel", job)["status"] == "cancelled"
    assert "groundwork jobs show" in desk.shell.refuses("jobs", "resume", job)
    done = desk.shell.run("jobs", "watch", job)
    assert done.returncode == 1 and "was cancelled" in done.stderr


def test_what_a_run_told_can_be_looked_at(desk: Desk) -> None:
    job = desk.job()
    work(desk, job)
    shell: Shell = desk.shell
    assert [each["code"] for each in shell.json("jobs", "events", job)][:2] == ["queued", "running"]
    assert "hello" in shell.says("jobs", "events", job)
    assert shell.json("jobs", "logs", job)["text"] == "preparing\ntraining \x1b[31m\n"
    assert "\x1b" not in shell.says("jobs", "logs", job)
    table = shell.says("jobs", "metrics", job)
    assert "train/loss" in table and "█" in table
    assert shell.json("jobs", "metrics", job, "train/loss")["series"][0]["values"][-1] == 2.0
    assert shell.says("jobs", "metrics", job, "--csv").splitlines()[:2] == ["series,step,value", "train/loss,1,10.0"]
    assert "no series nope" in shell.refuses("jobs", "metrics", job, "nope")
    assert shell.json("jobs", "checkpoints", job)[0]["step"] == STEPS
    assert shell.json("jobs", "samples", job) == [] and "no samples" in shell.says("jobs", "samples", job)
    names = {each["path"] for each in shell.json("jobs", "files", job)}
    made = shell.json("jobs", "files", job, "-o", "files")
    assert {each["path"] for each in made} == {f"files/{name}" for name in names}
    assert (shell.folder / "files" / "model.safetensors").read_bytes() == b"bytes"


def test_a_connection_that_is_cut_does_not_end_the_watching(desk: Desk) -> None:
    job = desk.job()
    with Proxy(desk.world.live.port) as proxy:
        watching = Shell(desk.shell.folder, proxy.url, desk.shell.key).start("jobs", "watch", job)
        read_until(watching, "waits for a worker")
        proxy.mode = "refuse"
        work(desk, job)
        time.sleep(0.5)
        proxy.mode = "pass"
        out, err = watching.communicate(timeout=90)
    assert watching.returncode == 0, err
    assert out.count("Attempt 1 started.") == 1 and out.count("The job succeeded.") == 1


def test_a_job_of_another_kind_has_no_report(desk: Desk) -> None:
    job = desk.job()
    assert "no report" in desk.shell.refuses("reports", "show", job)
    assert "no reports" in desk.shell.says("reports", "list")
