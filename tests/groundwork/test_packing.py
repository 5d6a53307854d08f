"""A folder as one zip: the same bytes for the same content, from the client and from the command line."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from groundwork.commands import folders
from groundwork.commands.failures import Failure
from groundwork.errors import GroundworkError
from groundwork.rest.packing import as_one_file


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two labels, and what is hidden."""
    folder = tmp_path / "pets"
    for name in ("dog/2.txt", "cat/1.txt", "cat/9.jpg", ".git/config", "cat/.DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * 100)
    return folder


def test_client_and_command_line_pack_a_folder_alike_and_again_alike(pets: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / "pets"
    shutil.copytree(pets, again)
    for path in again.rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000))
    told: list[int] = []
    with as_one_file(pets) as one, folders.as_file(again, told.append) as other:
        assert one.name == other.name == "pets.zip" and one.read_bytes() == other.read_bytes()
        with zipfile.ZipFile(one) as archive:
            assert archive.namelist() == ["cat/1.txt", "cat/9.jpg", "dog/2.txt"]
            assert archive.read("dog/2.txt") == b"dog/2.txt" * 100
    assert told == [1, 2, 3] and not one.exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_may_lead_anywhere_or_never_end_is_refused_by_both(kind: str, pets: Path) -> None:
    odd = pets / "dog" / "odd"
    odd.symlink_to("/etc/passwd") if kind == "link" else os.mkfifo(odd)
    with pytest.raises(GroundworkError, match="dog/odd is "), as_one_file(pets):
        pass
    with pytest.raises(Failure, match="dog/odd is ") as caught, folders.as_file(pets):
        pass
    assert caught.value.advice


def test_a_folder_that_cannot_be_read_is_not_left_out(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError), as_one_file(pets):
        pass
    with pytest.raises(Failure, match="dog: Permission denied"), folders.as_file(pets):
        pass
