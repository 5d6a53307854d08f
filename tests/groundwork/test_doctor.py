"""`groundwork doctor` on a live platform, on none, and on broken ones."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.groundwork.serving import Served, eventually, run

SECRETS = {"secret_key": "s" * 32, "worker_token": "t" * 32}


def looked_at(folder: Path, **settings: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = run("doctor", "--json", "--data-dir", str(folder), **settings)
    assert done.stderr == ""
    return done.returncode, {each["part"]: each for each in json.loads(done.stdout)}


@pytest.mark.slow
def test_all_is_well_while_it_serves_and_what_is_not_is_told(tmp_path: Path) -> None:
    served = Served(tmp_path / "data").ready()
    try:
        status, parts = looked_at(tmp_path / "data")
        assert status == 0, parts
        assert {part for part, told in parts.items() if told["status"] != "ok"} == set(), parts
        wanted = {"software", "settings", "secrets", "database", "clock", "queue", "store", "broker", "api", "sandbox"}
        assert wanted | {"inference", "device", "compiler"} == set(parts)
        plain = run("doctor", "--data-dir", str(tmp_path / "data"))
        assert plain.returncode == 0 and "ok    database" in plain.stdout
        assert not list((tmp_path / "data" / "store").rglob("doctor/*")), "the probe is gone"
        os.kill(served.state()["pids"]["inference"], signal.SIGSTOP)
        _, parts = looked_at(tmp_path / "data")
        assert parts["inference"]["status"] == "warn" and "503" in parts["inference"]["advice"]
        os.kill(served.state()["pids"]["inference"], signal.SIGCONT)
        (tmp_path / "data" / "secrets.json").chmod(0o644)
        _, parts = looked_at(tmp_path / "data")
        assert parts["secrets"]["status"] == "warn" and parts["secrets"]["advice"].startswith("chmod 600")
    finally:
        served.process.terminate()
        served.process.wait(30)
    status, parts = looked_at(tmp_path / "data")
    assert status == 0 and parts["api"]["status"] == parts["inference"]["status"] == "warn"
    assert "groundwork serve" in parts["api"]["advice"]


def test_without_a_schema_and_with_a_newer_one(tmp_path: Path) -> None:
    settings = {"data_dir": str(tmp_path), **SECRETS}
    status, parts = looked_at(tmp_path, **settings)
    assert status == 1
    assert (parts["database"]["status"], parts["database"]["advice"]) == ("fail", "run `groundwork migrate`")
    assert run("migrate", **settings).returncode == 0
    assert looked_at(tmp_path, **settings)[1]["database"]["status"] == "ok"
    with sqlite3.connect(tmp_path / "groundwork.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    told = looked_at(tmp_path, **settings)[1]["database"]
    assert told["status"] == "ok" and "schema 9999 (newer than this program's" in told["detail"]
    with sqlite3.connect(tmp_path / "groundwork.db") as database:
        database.execute("UPDATE schema_floor SET revision = '9999'")
    status, parts = looked_at(tmp_path, **settings)
    assert status == 1 and "newer than this program" in parts["database"]["detail"]


def test_what_waits_for_a_worker_is_told(tmp_path: Path) -> None:
    settings = {"data_dir": str(tmp_path), **SECRETS}
    assert run("migrate", **settings).returncode == 0
    with sqlite3.connect(tmp_path / "groundwork.db") as database:
        database.execute("PRAGMA foreign_keys=OFF")
        names = [row[1] for row in database.execute("PRAGMA table_info(jobs)")]
        kinds = {row[1]: row[2] for row in database.execute("PRAGMA table_info(jobs)")}
        values = {name: 0 if "INT" in kinds[name] else "{}" if kinds[name] == "JSON" else "x" for name in names}
        values |= {"id": "job_1", "status": "queued", "queue": "gpu", "available_at": 0}
        marks = ", ".join("?" * len(names))
        database.execute(f"INSERT INTO jobs ({', '.join(names)}) VALUES ({marks})", list(values.values()))
    _, parts = looked_at(tmp_path, **settings)
    assert parts["queue"]["status"] == "warn" and "1 in queue gpu" in parts["queue"]["detail"]


@pytest.mark.parametrize(
    ("settings", "part", "words"),
    [
        ({}, "settings", "GROUNDWORK_SECRET_KEY"),
        ({**SECRETS, "database_url": "nonsense"}, "settings", "GROUNDWORK_DATABASE_URL"),
        ({**SECRETS, "database_url": "postgresql://u:canary@127.0.0.1:9/x"}, "database", "refused"),
        ({**SECRETS, "store_url": "s3://nowhere/x"}, "store", ""),
    ],
)
def test_what_is_broken_is_one_finding_with_advice_and_no_secret(
    settings: dict[str, str], part: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AWS_ENDPOINT": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "x"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = run("doctor", "--json", "--data-dir", str(tmp_path), **settings)
    assert done.returncode == 1, done.stderr
    assert "canary" not in done.stdout + done.stderr and "Traceback" not in done.stdout + done.stderr
    (found,) = [each for each in json.loads(done.stdout) if each["part"] == part]
    assert found["status"] == "fail" and words in found["detail"] and found["advice"]


def test_secrets_of_a_new_folder_are_for_its_owner_alone(tmp_path: Path) -> None:
    served = Served(tmp_path / "data")
    try:
        eventually(lambda: (tmp_path / "data" / "secrets.json").exists())
        assert stat.S_IMODE((tmp_path / "data" / "secrets.json").stat().st_mode) == 0o600
    finally:
        served.process.terminate()
        served.process.wait(30)


def test_garbage_is_collected_from_the_command_line(tmp_path: Path) -> None:
    settings = {"data_dir": str(tmp_path), **SECRETS}
    assert run("migrate", **settings).returncode == 0
    lost = tmp_path / "store" / "datasets" / "ds_lost" / "upload"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(b"12345")
    arguments = ["gc", "--data-dir", str(tmp_path), "--grace-hours", "0"]
    for words in ("0 deleted (0 bytes), 1 within", "1 deleted (5 bytes), 0 within", "without an owner 0"):
        done = run(*arguments, **settings)
        assert done.returncode == 0 and words in done.stdout, done.stdout + done.stderr
    assert not lost.exists()
