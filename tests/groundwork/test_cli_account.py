"""Who asks, and where: login, keys, the catalogue, and the words after the tab key."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.groundwork.commanding import Desk, Shell, desk
from tests.groundwork.serving import CLI

__all__ = ["desk"]


@pytest.fixture
def stranger(tmp_path: Path) -> Shell:
    """A shell that knows nothing yet."""
    return Shell(tmp_path)


def test_login_keeps_url_and_key_for_the_user_alone_and_logout_forgets(desk: Desk, stranger: Shell) -> None:
    words = stranger.says("login", "--url", f"{desk.shell.url}/v1/", stdin=f"{desk.shell.key}\n")
    file = stranger.folder / "config" / "groundwork" / "login.json"
    assert str(file) in words and (desk.shell.key or "") not in words
    assert file.stat().st_mode & 0o777 == 0o600
    who = stranger.json("whoami")
    assert who["url"] == desk.shell.url and who["project"] == desk.world.project_id
    assert who["key"].startswith("key_") and who["url_from"] == who["key_from"] == "groundwork login"
    assert stranger.json("logout")["deleted"] == str(file)
    assert not file.exists() and "nobody" in stranger.says("logout")


def test_a_wrong_key_is_not_kept(desk: Desk, stranger: Shell) -> None:
    assert "not valid" in stranger.refuses("login", "--url", desk.shell.url or "", stdin="gw_wrong\n")
    assert "no key" in stranger.refuses("login", "--url", desk.shell.url or "", status=2)
    assert not (stranger.folder / "config").exists()


def test_the_key_of_a_login_goes_to_its_own_server_alone(desk: Desk, stranger: Shell) -> None:
    stranger.says("login", "--url", desk.shell.url or "", stdin=f"{desk.shell.key}\n")
    assert "no API key is known" in stranger.refuses("whoami", "--url", "http://127.0.0.1:9", status=2)


def test_a_login_that_others_can_read_is_refused(desk: Desk, stranger: Shell) -> None:
    stranger.says("login", "--url", desk.shell.url or "", stdin=f"{desk.shell.key}\n")
    (stranger.folder / "config" / "groundwork" / "login.json").chmod(0o644)
    assert "chmod 600" in stranger.refuses("whoami", status=2)


def test_flags_stand_before_the_command_as_well(desk: Desk, stranger: Shell) -> None:
    flags = ("--url", desk.shell.url or "", "--key", desk.shell.key or "", "--json")
    assert json.loads(stranger.says(*flags, "datasets", "list")) == []


def test_keys_are_made_listed_rotated_and_revoked_over_http(desk: Desk) -> None:
    shell = desk.shell
    made = shell.json("keys", "create", "--name", "laptop", "--scopes", "read")
    assert Shell(shell.folder, shell.url, made["key"]).json("whoami")["key"] == made["id"]
    assert shell.says("keys", "create", "--name", "second").startswith("gw_")
    listed = {each["name"]: each for each in shell.json("keys", "list")}
    assert listed["laptop"]["scopes"] == ["read"] and listed["laptop"]["key"] is None
    assert "laptop" in shell.says("keys", "list")
    fresh = shell.json("keys", "rotate", made["id"], "--overlap", "0")
    assert fresh["key"].startswith("gw_") and fresh["id"] != made["id"]
    assert shell.says("keys", "revoke", fresh["id"], "--yes")
    assert "not valid" in Shell(shell.folder, shell.url, fresh["key"]).refuses("whoami")
    assert "--scopes" in shell.refuses("keys", "create", "--scopes", "root", status=2)


@pytest.mark.parametrize(("kind", "name", "field"), [("objectives", "mlm", "mask_probability"),
                                                     ("tasks", "classification", "mode"),
                                                     ("backbones", "vit-tiny", "width")])  # fmt: skip
def test_the_catalogue_as_tables(kind: str, name: str, field: str, desk: Desk) -> None:
    assert name in desk.shell.says(kind)
    one = desk.shell.json(kind, name)
    assert one["name"] == name and field in one["defaults"] and field in json.dumps(one["parameters"])
    assert field in desk.shell.says(kind, name)
    assert "use one of" in desk.shell.refuses(kind, "nope")
    assert "'smell'" in desk.shell.refuses(kind, "--modality", "smell")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_prints(shell: str, stranger: Shell) -> None:
    script = stranger.says("completion", shell)
    assert "groundwork" in script and "_GROUNDWORK_COMPLETE" in script
    assert "bash, zsh" in stranger.refuses("completion", "tcsh", status=2)


def test_the_tab_key_offers_commands_flags_and_ids(desk: Desk) -> None:
    dataset = desk.world.dataset()

    def offered(line: str, **more: str) -> str:
        words = line.split(" ")
        asks = {"_GROUNDWORK_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        environment = desk.shell.environment(**asks, **more)
        done = subprocess.run([*CLI], env=environment, cwd=desk.shell.folder, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout

    assert "datasets" in offered("groundwork data")
    assert "--watch" in offered("groundwork jobs submit --wa")
    assert dataset in offered("groundwork datasets show ds_")
    assert "mlm" in offered("groundwork pretrain ds_1 --objective ml")
    assert offered("groundwork datasets show ds_", GROUNDWORK_URL="http://127.0.0.1:9").strip() == ""
