"""What goes wrong is one line on standard error with what to do next, and a status that a script can read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from groundwork.commands import places
from tests.groundwork.commanding import Desk, Shell, desk

__all__ = ["desk"]
NOWHERE = "http://127.0.0.1:9"


def test_no_server_is_status_4_and_says_how_to_name_one(tmp_path: Path) -> None:
    line = Shell(tmp_path, NOWHERE, "gw_x").refuses("datasets", "list", status=4)
    assert NOWHERE in line and "refused" in line and "GROUNDWORK_URL" in line


def test_what_answers_but_is_no_server_of_ours_is_told_apart(desk: Desk, tmp_path: Path) -> None:
    line = Shell(tmp_path, f"{desk.shell.url}/docs", desk.shell.key).refuses("datasets", "list")
    assert "/docs/v1/datasets" in line and "--url" in line


def test_without_a_key_nothing_is_asked(tmp_path: Path) -> None:
    assert "groundwork login" in Shell(tmp_path, NOWHERE).refuses("jobs", "list", status=2)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://"])
def test_an_address_that_cannot_be_one(url: str, tmp_path: Path) -> None:
    assert url in Shell(tmp_path, url, "gw_x").refuses("jobs", "list", status=2)


def test_a_key_that_is_not_valid(desk: Desk) -> None:
    line = Shell(desk.shell.folder, desk.shell.url, "gw_wrong").refuses("datasets", "list")
    assert "not valid" in line and "groundwork login" in line


def test_a_key_without_the_scope(desk: Desk) -> None:
    reader = Shell(desk.shell.folder, desk.shell.url, desk.world.key("read"))
    assert reader.says("datasets", "list")
    line = reader.refuses("pretrain", desk.world.dataset(), "--objective", "mlm")
    assert "`write`" in line and "--scopes" in line


def test_a_failure_leaves_standard_output_empty_with_json_too(desk: Desk) -> None:
    assert "No dataset" in desk.shell.refuses("datasets", "show", "ds_none", "--json")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("datasets", "lst"), "Did you mean 'list'"),
        (("jobs", "list", "--stauts", "x"), "--status"),
        (("jobs", "list", "--limit", "many"), "limit"),
        (("datasets", "upload"), "Missing argument"),
        (("datasets", "show", "../models"), "no id of a dataset"),
        (("jobs", "show", "ds_01"), "job_"),
    ],
)
def test_a_command_that_cannot_be_meant_so_is_status_2(command: tuple[str, ...], words: str, tmp_path: Path) -> None:
    line = Shell(tmp_path, NOWHERE, "gw_x").refuses(*command, status=2)
    assert words in line and "--help" in line


@pytest.mark.parametrize("path", ["none.txt", "none/"])
def test_a_file_that_is_not_there(path: str, tmp_path: Path) -> None:
    assert "does not exist" in Shell(tmp_path, NOWHERE, "gw_x").refuses("datasets", "upload", path, status=2)


def test_a_link_in_a_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "link.txt").symlink_to(tmp_path / "secret.txt")
    line = Shell(tmp_path, NOWHERE, "gw_x").refuses("datasets", "upload", "texts", status=2)
    assert "link.txt is a link" in line


def test_deleting_asks_and_a_script_must_say_yes(desk: Desk) -> None:
    dataset = desk.world.dataset()
    assert "--yes" in desk.shell.refuses("datasets", "delete", dataset, status=2)
    assert dataset in desk.shell.says("datasets", "delete", dataset, "--yes")
    assert "No dataset" in desk.shell.refuses("datasets", "show", dataset)


def test_a_reader_that_goes_away_is_no_error(desk: Desk) -> None:
    process = desk.shell.start("objectives", "--json")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_serve_json_that_came_with_a_download_gets_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDWORK_DATA_DIR", str(tmp_path))
    for url, found in (("http://198.51.100.7:8420", None), ("http://127.0.0.1:1", "http://127.0.0.1:1")):
        (tmp_path / "serve.json").write_text(json.dumps({"url": url, "pid": os.getpid()}))
        assert places.local_url() == found
    (tmp_path / "serve.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 2**22 + 1}))
    assert places.local_url() is None


def test_a_data_folder_of_somebody_else_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert places.local_url() is None


def test_the_bare_install_talks_to_a_server_and_says_what_a_role_needs(desk: Desk, tmp_path: Path) -> None:
    absent = ("fastapi", "uvicorn", "sqlalchemy", "celery", "torch", "pydantic_settings", "numpy")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n")
    path = f"{tmp_path}{os.pathsep}{desk.shell.environment()['PYTHONPATH']}"
    assert desk.shell.run("datasets", "list", "--json", PYTHONPATH=path).returncode == 0
    doctor = desk.shell.run("doctor", PYTHONPATH=path)
    assert doctor.returncode == 0 and "opens project first" in doctor.stdout, doctor.stderr
    worker = desk.shell.run("worker", PYTHONPATH=path)
    assert worker.returncode == 3 and "pip install" in worker.stderr


def test_importing_the_commands_costs_the_roles_nothing() -> None:
    import subprocess

    heavy = "('httpx2', 'yaml', 'rich', 'fastapi', 'torch')"
    code = f"import groundwork.cli, sys; bad = [m for m in {heavy} if m in sys.modules]; assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
