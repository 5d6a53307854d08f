"""`groundwork login`, `logout`, `whoami`: the server and the key that later commands use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from groundwork.commands import draw, places
from groundwork.commands.command import Json, Terminal, command
from groundwork.commands.failures import REFUSED, Failure

if TYPE_CHECKING:
    from groundwork.commands.server import Server

DataDir = Annotated[
    Path | None, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve` here: a new key is made in it")
]


def attach_top(app: typer.Typer) -> None:
    """All three."""
    for name, function in (("login", login), ("logout", logout), ("whoami", whoami)):
        command(app, name, "This machine")(function)


def login(terminal: Terminal, data_dir: DataDir = None) -> None:
    """Keep a server's address and a key in a file for you alone, once both are found to be right.

    The key is asked for, or read from standard input where that is a pipe. With --data-dir, or beside a running
    `groundwork serve`, no key is needed: one is made straight in its database.
    """
    if data_dir is not None and terminal.url is None:
        terminal.url = places.local_url(data_dir)
        if terminal.url is None:
            raise Failure(f"no `groundwork serve` runs on {data_dir}", "start it, or give --url")
    from groundwork.commands.server import Server

    place = places.find(terminal.url, terminal.key)
    folder = data_dir or (places.data_folder() if place.url == places.local_url() else None)
    key = terminal.key or _key(terminal, place.url, folder)
    who = _who(Server(places.Place(place.url, place.told_by, key)))
    path = places.write_login(place.url, key)
    terminal.show({**who, "file": str(path)}, lambda: [draw.plain(f"logged in at {place.url}; kept in {path}")])


def logout(terminal: Terminal) -> None:
    """Forget what `login` kept. The key itself stays valid: `groundwork keys revoke` ends it."""
    gone = places.forget_login()
    words = f"deleted {gone}" if gone else "nobody was logged in"
    terminal.show({"deleted": None if gone is None else str(gone)}, lambda: [draw.plain(words)])


def whoami(terminal: Terminal) -> None:
    """Which server, key and project commands use, and what said so."""
    server = terminal.server
    who = _who(server) | {"url_from": server.place.told_by, "key_from": server.place.key_told_by}
    sheet = {
        "server": f"{who['url']}   ({who['url_from']})", "key": f"{who['key']}   ({who['key_from']})",
        "project": f"{who['project']}   {who['project_name']}",
    }  # fmt: skip
    terminal.show(who, lambda: [draw.facts(sheet)])


def _who(server: Server) -> Json:
    projects = server.get("/projects", limit=1, order="asc")["data"]
    public = (server.place.key or "").split("_")
    return {
        "url": server.place.url, "key": f"key_{public[1]}" if len(public) == 3 else None,
        "project": projects[0]["id"], "project_name": projects[0]["name"],
    }  # fmt: skip


def _key(terminal: Terminal, url: str, folder: Path | None) -> str:
    if folder is not None and (folder / "secrets.json").is_file():
        return _made(folder)
    if not sys.stdin.isatty():
        key = sys.stdin.readline().strip()
    else:
        key = str(typer.prompt(f"API key for {url}", hide_input=True, err=True)).strip()
    if not key:
        raise Failure("no key was given", "type it, or pipe it: `groundwork login < key.txt`")
    return key


def _made(folder: Path) -> str:
    """A new key from the database of a serve on this machine; it never stands on a command line."""
    call = [sys.executable, "-m", "groundwork.cli", "keys", "create", "--name", f"login on {os.uname().nodename}"]
    done = subprocess.run([*call, "--data-dir", str(folder)], capture_output=True, text=True)
    if done.returncode:
        words = done.stderr.strip().rpartition("\n")[2].removeprefix("groundwork: ")
        raise Failure(words or "no key could be made", "give a key with --key", REFUSED)
    return done.stdout.strip()
