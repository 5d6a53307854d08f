"""The data folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from groundwork.folder import DataFolder, Refusal, listen


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    made = folder.secrets()
    assert folder.secrets() == made and made["worker_token"] != made["secret_key"]
    assert all(len(secret) >= 40 for secret in made.values())


@pytest.mark.parametrize("content", ["", "[]", '{"worker_token": "weak", "secret_key": "weak"}', "{}"])
def test_a_secrets_file_that_cannot_be_used_is_never_replaced(content: str, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    file = folder.path / "secrets.json"
    file.write_text(content)
    with pytest.raises(Refusal, match=r"secrets\.json"):
        folder.secrets()
    assert file.read_text() == content


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    holder = DataFolder(tmp_path / "data")
    with pytest.raises(Refusal, match=f"pid {os.getpid()}"):
        DataFolder(tmp_path / "data")
    del holder
    DataFolder(tmp_path / "data")


def test_the_brokers_socket_has_a_short_path_however_deep_the_folder_is(tmp_path: Path) -> None:
    deep = DataFolder(tmp_path / ("d" * 60) / ("e" * 60))
    path = deep.broker_socket()
    try:
        assert len(os.fsencode(path)) < 108 and path == deep.broker_socket()
        assert oct(path.parent.stat().st_mode)[-3:] == "700"
    finally:
        path.parent.rmdir()


def test_a_short_folder_holds_its_socket_itself(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "d")
    assert folder.broker_socket().is_relative_to(folder.path)


def test_what_serve_tells_is_written_whole_and_forgotten(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.tell({"url": "http://x", "pids": {}})
    assert json.loads((folder.path / "serve.json").read_text())["url"] == "http://x"
    folder.forget()
    assert not (folder.path / "serve.json").exists()


def test_port_0_is_any_free_one_and_a_foreign_address_is_refused() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0
    with pytest.raises(Refusal, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)
