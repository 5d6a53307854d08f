"""What stops a command is one line and a status (B82)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from groundwork.folder import DataFolder
from tests.groundwork.serving import CLI, ROOT, clean_environment, eventually, run

SECRETS = {"secret_key": "s" * 32, "worker_token": "t" * 32}


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode not in (0, 1), done.stderr
    assert done.stderr.startswith("groundwork") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("command", ["api", "migrate"])
@pytest.mark.parametrize("url", ["nonsense", "mongodb://x/y", "postgresql+nodriver://x/y"])
def test_a_database_url_that_cannot_be_one(command: str, url: str, tmp_path: Path) -> None:
    assert_one_line(run(command, database_url=url, data_dir=str(tmp_path), **SECRETS), "GROUNDWORK_DATABASE_URL")


def test_migrating_a_database_that_does_not_answer(tmp_path: Path) -> None:
    url = "postgresql+psycopg://user:canary@127.0.0.1:9/none?connect_timeout=2"
    done = run("migrate", database_url=url, data_dir=str(tmp_path), **SECRETS)
    assert_one_line(done, "refused")
    assert "canary" not in done.stderr


@pytest.mark.parametrize("secrets", [{}, {"secret_key": "short", "worker_token": "t" * 32}])
def test_a_missing_or_weak_secret(secrets: dict[str, str], tmp_path: Path) -> None:
    done = run("api", data_dir=str(tmp_path), **secrets)
    assert_one_line(done, "GROUNDWORK_SECRET_KEY")
    assert "'short'" not in done.stderr


@pytest.mark.parametrize("command", [["serve", "--port", "0", "--data-dir"], ["migrate"], ["api"]])
def test_a_data_folder_that_cannot_be_written(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = str(tmp_path / "file" / "data")
    arguments = [*command, folder] if command[0] == "serve" else command
    assert_one_line(run(*arguments, data_dir=folder, **SECRETS), "data folder", folder)


def test_the_api_on_a_port_in_use(tmp_path: Path) -> None:
    assert run("migrate", data_dir=str(tmp_path), **SECRETS).returncode == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_one_line(run("api", data_dir=str(tmp_path), port=port, **SECRETS), port, "in use")


def test_a_second_api_on_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    assert run("migrate", data_dir=str(tmp_path), **SECRETS).returncode == 0
    settings = clean_environment(data_dir=str(tmp_path), port="0", **SECRETS)
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen([*CLI, "api"], env=settings, cwd=ROOT, stdout=log, stderr=log)
    try:
        eventually((tmp_path / "groundwork.db.serving").exists)
        assert_one_line(run("api", data_dir=str(tmp_path), port="0", **SECRETS), "already serves", "SQLite")
        assert first.poll() is None
    finally:
        first.terminate()
        first.wait(20)


def test_the_api_on_a_database_without_a_schema_says_what_to_run(tmp_path: Path) -> None:
    assert_one_line(run("api", data_dir=str(tmp_path), **SECRETS), "groundwork migrate")


def test_migrate_prints_the_first_key_once_and_keys_create_makes_more(tmp_path: Path) -> None:
    first, second = (run("migrate", data_dir=str(tmp_path), **SECRETS) for _ in range(2))
    assert first.returncode == second.returncode == 0
    assert "gw_" in first.stdout and second.stdout == ""
    made = run("keys", "create", "--scopes", "read", data_dir=str(tmp_path), **SECRETS)
    assert made.returncode == 0 and made.stdout.startswith("gw_") and made.stdout.count("\n") == 1


def test_keys_create_needs_only_the_data_folder_of_serve(tmp_path: Path) -> None:
    secrets = DataFolder(tmp_path).secrets()
    assert run("migrate", data_dir=str(tmp_path), **secrets).returncode == 0
    made = run("keys", "create", "--data-dir", str(tmp_path))
    assert made.returncode == 0 and made.stdout.startswith("gw_"), made.stderr
    assert_one_line(run("keys", "create", "--data-dir", str(tmp_path / "none")), "GROUNDWORK_SECRET_KEY")


def test_a_key_with_an_unknown_scope_is_refused(tmp_path: Path) -> None:
    assert run("migrate", data_dir=str(tmp_path), **SECRETS).returncode == 0
    done = run("keys", "create", "--scopes", "read,root", data_dir=str(tmp_path), **SECRETS)
    assert_one_line(done, "read, write, admin")


def test_without_the_server_extras_the_client_works_and_a_role_says_what_to_install(tmp_path: Path) -> None:
    hidden = tmp_path / "sitecustomize.py"
    absent = ("fastapi", "uvicorn", "sqlalchemy", "celery", "torch", "pydantic_settings")
    hidden.write_text(f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n")
    environment = clean_environment() | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert call("-c", "import groundwork.client").returncode == 0
    assert call("-m", "groundwork.cli", "version").returncode == 0
    for command, extra in (("api", "[api]"), ("worker", "[worker]"), ("migrate", "[api]")):
        assert_one_line(call("-m", "groundwork.cli", command), "pip install", extra)
