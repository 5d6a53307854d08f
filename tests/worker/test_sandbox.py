"""What an engine can reach: its own folder, its programs, and nothing else of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import worker.launch
from worker.engine import Engine
from worker.launch import LEAST_ABI, landlock_abi
from worker.main import main
from worker.sandbox import ground
from worker.settings import GIB, WorkerSettings

ABI = landlock_abi()
confined = pytest.mark.skipif(ABI < LEAST_ABI, reason="this kernel has no Landlock")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "worker" / "runs" / "job_1-1"
    folder.mkdir(parents=True)
    (tmp_path / "data" / "secrets.json").write_text("canary")
    return folder


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def order(**spec: Any) -> dict[str, Any]:
    return {"spec": {"type": "ingest", **spec}, "datasets": {}}


def outcome(run: Path, code: str, **spec: Any) -> str:
    """What a program prints that the launcher started on an engine's ground; the name of what it died of."""
    where = ground(run, order(**spec), {}, (run.parents[2],))
    program = [sys.executable, "-I", "-S", worker.launch.__file__, str(os.getpid()), "9", "-", json.dumps(where), "--"]
    done = subprocess.run([*program, sys.executable, "-c", code], capture_output=True, text=True, cwd=run)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@confined
def test_it_reads_and_writes_its_own_folder(run: Path) -> None:
    code = "import os; os.mkdir('a'); open('a/b', 'w').write('x'); os.rename('a/b', 'c'); print(open('c').read())"
    assert outcome(run, code) == "x"


@confined
def test_it_imports_what_the_worker_has_installed(run: Path) -> None:
    assert outcome(run, "import pyarrow, PIL, numpy; print('here')") == "here"


@confined
@pytest.mark.parametrize("doing", ["read_text()", "write_text('x')", "unlink()", "rename('mine')"])
def test_the_platforms_secrets_are_out_of_its_reach(run: Path, doing: str) -> None:
    secret = run.parents[2] / "secrets.json"
    assert outcome(run, f"import pathlib; pathlib.Path({str(secret)!r}).{doing}").startswith("PermissionError")
    assert secret.read_text() == "canary"


@confined
def test_another_run_beside_it_is_out_of_reach(run: Path) -> None:
    other = run.parent / "job_2-1" / "inputs"
    other.mkdir(parents=True)
    (other / "rows.csv").write_text("foreign")
    assert outcome(run, f"open({str(other / 'rows.csv')!r})").startswith("PermissionError")


@confined
def test_what_it_starts_is_bound_alike(run: Path) -> None:
    secret = run.parents[2] / "secrets.json"
    assert "Permission denied" in outcome(run, f"import os; os.execv('/bin/cat', ['cat', {str(secret)!r}])")


@confined
@pytest.mark.skipif(ABI < 4, reason="this kernel's Landlock knows no network")
def test_it_opens_no_connection(run: Path, listener: int) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {listener}), 5); print('through')"
    assert outcome(run, code).startswith("PermissionError")
    assert outcome(run, code, type="pretrain", resources={"processes": 2}) == "through"


@confined
@pytest.mark.skipif(ABI < 6, reason="this kernel's Landlock knows no signals")
def test_it_signals_nobody_outside(run: Path) -> None:
    assert outcome(run, f"import os; os.kill({os.getpid()}, 0)").startswith("PermissionError")


def test_a_hub_is_reached_where_the_operator_allows_it(run: Path) -> None:
    asked = order(type="import", hub={"repository": "a/b"})
    assert ground(run, asked, {"GROUNDWORK_ALLOW_HUB": "1"}, ())["network"]
    assert not ground(run, asked, {}, ())["network"]


def test_a_data_folder_within_the_programs_folder_is_left_out(tmp_path: Path, run: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / ".env").write_text("SECRET=1")
    where = ground(run, order(), {"PYTHONPATH": str(tmp_path)}, (tmp_path / "data",))
    assert str(tmp_path / "app") in where["read"]
    assert str(tmp_path) in where["listed"]
    assert not any(Path(path) in {tmp_path, tmp_path / "data", tmp_path / ".env"} for path in where["read"])


@confined
def test_the_process_that_answers_requests_sees_its_models_and_no_secret(run: Path) -> None:
    data = run.parents[2]
    code = (
        "import pathlib; from worker.inference import InferenceSettings, _confine\n"
        f"data = pathlib.Path({str(data)!r})\n"
        "settings = InferenceSettings(worker_token='t' * 32, data_dir=data); _confine(settings)\n"
        "(settings.models_dir / 'x').write_text('y'); (data / 'secrets.json').read_text()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1].startswith("PermissionError: [Errno 13]")
    assert (data / "cache" / "models" / "x").read_text() == "y"


def test_a_worker_that_must_confine_its_engines_does_not_start_where_it_cannot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GROUNDWORK_WORKER_TOKEN", "t" * 32)
    monkeypatch.setenv("GROUNDWORK_SANDBOX", "required")
    monkeypatch.setattr("worker.main.landlock_abi", lambda: 1)
    assert main([]) == 2
    assert "GROUNDWORK_SANDBOX is `required`, and this kernel has no Landlock" in capsys.readouterr().err


def test_an_engine_that_only_reads_files_has_a_limit_of_memory(tmp_path: Path) -> None:
    settings = WorkerSettings(worker_token=SecretStr("t" * 32), data_dir=tmp_path, ingest_memory_bytes=2 * GIB)
    (tmp_path / "run.json").write_text(json.dumps(order()))
    assert f"data={2 * GIB}" in Engine(tmp_path, settings).bounds({})[0]
    (tmp_path / "run.json").write_text(json.dumps(order(type="pretrain")))
    assert "data=" not in Engine(tmp_path, settings).bounds({})[0]
