"""Uploads that are broken off from the command line, and long waits: what a person can go on with is said."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from groundwork.rest.parts import PART_BYTES
from tests.groundwork.commanding import Shell
from tests.groundwork.cutting import Answer, Asked, Scripted
from tests.groundwork.serving import eventually

KEY = "gw_key"


def answer(status: int, document: dict[str, object], **headers: str) -> Answer:
    """JSON, as the API writes it."""
    return Answer(status, json.dumps(document).encode(), {name.replace("_", "-"): to for name, to in headers.items()})


def begun(asked: Asked) -> Answer:
    """The upload that was asked for."""
    return answer(201, {**json.loads(asked.body), "id": "upl_1", "status": "pending", "parts": []})


def refused(status: int, retry_after: int) -> Answer:
    """An error that may pass."""
    return answer(status, {"error": {"message": "Not now.", "code": "busy"}}, Retry_After=str(retry_after))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A file of two parts, in a folder."""
    path = tmp_path / "pets" / "pool.bin.gz"  # an ending of what is packed already: the zip is as large
    path.parent.mkdir()
    path.write_bytes(bytes(PART_BYTES + 1))
    return path


@pytest.mark.parametrize("status", [429, 503, 507])
@pytest.mark.parametrize("given", ["pets", "pets/pool.bin.gz"])
def test_an_upload_that_is_refused_for_now_says_why_and_what_goes_on_with_it(
    status: int, given: str, pool: Path, tmp_path: Path
) -> None:
    with Scripted(begun, refused(status, retry_after=3600)) as server:
        done = Shell(tmp_path, server.url, KEY).run("datasets", "upload", given, "--json")
    assert done.returncode == 1 and done.stdout == ""
    note, line = done.stderr.splitlines()
    assert note.startswith("upload upl_1: --resume upl_1")
    assert line.startswith(f"groundwork: the upload of {given} broke off: Not now. [{status} busy] — ")
    assert "--resume upl_1" in line


def test_an_upload_that_is_interrupted_says_what_goes_on_with_it_and_ends_at_once(pool: Path, tmp_path: Path) -> None:
    with Scripted(begun, refused(503, retry_after=50)) as server:
        sending = Shell(tmp_path, server.url, KEY).start("datasets", "upload", "pets")
        assert sending.stderr is not None
        assert "upl_1" in sending.stderr.readline()
        eventually(lambda: len(server.asked) > 1)
        sending.send_signal(signal.SIGINT)
        out, err = sending.communicate(timeout=20)
    assert sending.returncode == 130 and out == ""
    assert "`groundwork datasets upload pets --resume upl_1`" in err and err.endswith("groundwork: interrupted\n")


def test_a_part_on_its_way_does_not_hold_up_who_interrupts(pool: Path, tmp_path: Path) -> None:
    let_go = threading.Event()

    def stalled(_asked: Asked) -> Answer:
        let_go.wait(40)
        return answer(200, {"id": "part_1"})

    with Scripted(begun, stalled) as server:
        sending = Shell(tmp_path, server.url, KEY).start("datasets", "upload", "pets")
        eventually(lambda: len(server.asked) > 1)
        began = time.monotonic()
        sending.send_signal(signal.SIGINT)
        _, err = sending.communicate(timeout=30)
        took = time.monotonic() - began
        let_go.set()
    assert sending.returncode == 130 and took < 20, "the part alone would have taken forty seconds"
    assert "--resume upl_1` goes on with it" in err and err.endswith("groundwork: interrupted\n")


def export(*states: Answer) -> tuple[Answer | Callable[[Asked], Answer], ...]:
    """What a server says to `models download --format hf` where the export is not there yet, the job as in `states`."""
    missing = answer(409, {"error": {"message": "No.", "code": "not_exported"}}, x_should_retry="false")
    return answer(200, {"name": "mine"}), missing, answer(201, {"id": "job_1", "type": "export"}), *states


def stored(asked: Asked) -> Answer:
    """A small upload, kept as a dataset."""
    return answer(201, {"id": "ds_1", "status": "uploaded", "sha256": hashlib.sha256(b"a text").hexdigest()})


RUNNING = answer(200, {"id": "job_1", "status": "running", "progress": None})
SUCCEEDED = answer(200, {"id": "job_1", "status": "succeeded", "progress": None})
DOWNLOAD = ("models", "download", "mdl_1", "--format", "hf", "-o", "mine.zip", "--json")
AWAY = [refused(503, retry_after=0)] * 3


def test_a_wait_for_a_job_outlasts_a_server_that_is_started_anew(tmp_path: Path) -> None:
    with Scripted(*export(RUNNING, *AWAY, SUCCEEDED), Answer(200, b"zip")) as server:
        done = Shell(tmp_path, server.url, KEY).run(*DOWNLOAD)
    assert done.returncode == 0 and (tmp_path / "mine.zip").read_bytes() == b"zip", done.stderr
    assert "job_1" in done.stderr and json.loads(done.stdout)["bytes"] == 3


def test_a_wait_for_a_dataset_outlasts_a_server_that_is_started_anew(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    states = [answer(200, {"id": "ds_1", "status": status}) for status in ("ingesting", "ready")]
    with Scripted(stored, states[0], *AWAY, states[1]) as server:
        done = Shell(tmp_path, server.url, KEY).run("datasets", "upload", "a.txt", "--wait", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "ready", done.stderr


def test_whoever_interrupts_a_wait_is_told_what_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text")
    upload = ("datasets", "upload", "a.txt", "--wait", "--json")
    ingesting = answer(200, {"id": "ds_1", "status": "ingesting"})
    cases = (
        (DOWNLOAD, export(RUNNING), "job_1 goes on; `groundwork jobs watch job_1`"),
        (upload, (stored, ingesting), "ds_1 is read on; `groundwork datasets show ds_1`"),
    )
    for command, answers, words in cases:
        with Scripted(*answers) as server:
            waiting = Shell(tmp_path, server.url, KEY).start(*command)
            eventually(lambda server=server, answers=answers: len(server.asked) > len(answers))
            waiting.send_signal(signal.SIGINT)
            out, err = waiting.communicate(timeout=20)
        assert waiting.returncode == 130 and out == ""
        assert words in err and err.endswith("groundwork: interrupted\n")
