"""`groundwork keys`: API keys over HTTP, or straight from the database where the last one is lost."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from groundwork.commands import completion, draw
from groundwork.commands.command import Json, Terminal, command
from groundwork.commands.failures import Failure

SCOPES = ("read", "write", "admin")
Key = Annotated[str, completion.key_argument()]


def attach(group: typer.Typer) -> None:
    """`list`, `revoke`, `rotate`; `create` is in `groundwork.cli`, for it has a way without a server as well."""
    for name, function in (("list", list_keys), ("revoke", revoke), ("rotate", rotate)):
        command(group, name)(function)


def create(terminal: Terminal, name: str, scopes: str) -> None:
    """A new key of the project, its secret shown once."""
    wanted = list(filter(None, scopes.split(",")))
    if not wanted or set(wanted) - {*SCOPES}:
        raise Failure(f"--scopes {scopes!r} cannot be", "give some of read, write, admin, separated by commas")
    made = terminal.server.post("/api_keys", {"name": name, "scopes": wanted})
    terminal.show(made, lambda: [draw.plain(made["key"])])


def list_keys(
    terminal: Terminal, limit: Annotated[int, typer.Option(min=1, max=10_000, help="at most so many")] = 20
) -> None:
    """The project's keys, revoked and expired ones too; never a secret."""
    rows = terminal.server.rows("/api_keys", limit)
    lines = (
        (row["id"], draw.clip(row["name"], 40), ", ".join(row["scopes"]), _state(row), draw.when(row["created_at"]))
        for row in rows
    )
    terminal.show(rows, lambda: [draw.table(("id", "name", "scopes", "state", "created"), lines)])


def revoke(
    terminal: Terminal, id: Key, yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False
) -> None:
    """End a key: it opens nothing from now on."""
    terminal.confirm(f"Revoke {id}?", yes)
    gone = terminal.server.delete(f"/api_keys/{id}")
    terminal.show(gone, lambda: [draw.plain(f"revoked {id}")])


def rotate(
    terminal: Terminal,
    id: Key,
    overlap: Annotated[int, typer.Option(min=0, help="seconds for which the old key still works")] = 3600,
) -> None:
    """A new key with the same name and scopes; the old one works on for a while."""
    made: Json = terminal.server.post(f"/api_keys/{id}/rotate", {"overlap_seconds": overlap})
    terminal.note(f"{id} works for {draw.duration(overlap)} more; this is {made['id']}:")
    terminal.show(made, lambda: [draw.plain(made["key"])])


def _state(row: Json) -> Any:
    if row["revoked_at"]:
        return f"revoked {draw.when(row['revoked_at'])}"
    if row["expires_at"]:
        word = "expired" if row["expires_at"] < time.time() else "until"
        return f"{word} {draw.when(row['expires_at'])}"
    return "ok"
