"""Folders that are whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssl_core.durable import committed, fault_of, read_manifest


def commit(folder: Path, text: str = "hello") -> Path:
    with committed(folder, step=3) as temp:
        (temp / "a.txt").write_text(text)
        (temp / "deep").mkdir()
        (temp / "deep" / "b.txt").write_text("b")
    return folder


def test_a_committed_folder_verifies_and_names_its_files(tmp_path: Path) -> None:
    folder = commit(tmp_path / "final")
    assert fault_of(folder) is None
    assert [entry["path"] for entry in read_manifest(folder)["files"]] == ["a.txt", "deep/b.txt"]
    assert read_manifest(folder)["step"] == 3


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), committed(tmp_path / "final") as temp:
        (temp / "a.txt").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_committing_again_replaces_the_folder(tmp_path: Path) -> None:
    commit(tmp_path / "final", "old")
    assert (commit(tmp_path / "final", "new") / "a.txt").read_text() == "new"


def flip(folder: Path) -> None:
    (folder / "a.txt").write_text("hellp")


def truncate(folder: Path) -> None:
    (folder / "a.txt").write_text("hel")


def empty(folder: Path) -> None:
    (folder / "a.txt").write_text("")


def remove(folder: Path) -> None:
    (folder / "a.txt").unlink()


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def wrong_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [flip, truncate, empty, remove, break_manifest, wrong_manifest])
def test_any_damage_is_seen_and_named(tmp_path: Path, damage: object) -> None:
    folder = commit(tmp_path / "final")
    damage(folder)  # type: ignore[operator]
    fault = fault_of(folder)
    assert fault is not None and ("a.txt" in fault or "manifest" in fault)
