"""Words that the shell may put after the tab key: ids with their names, where a server answers within a second."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

SECONDS = 1.0
MOST = 50
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
Words = list[tuple[str, str]]


def _ids(path: str, describe: Callable[[dict[str, Any]], str], **query: int) -> Callable[[str], Words]:
    def complete(incomplete: str) -> Words:
        from groundwork.client import Retries
        from groundwork.commands.draw import clip
        from groundwork.commands.places import find
        from groundwork.commands.server import Server

        try:
            server = Server(find(None, None), timeout=SECONDS, retries=Retries(0))
            rows = server.get(path, **query)["data"]
        except Exception:  # a tab key is no place for errors, whatever they are
            return []
        return [(row["id"], clip(describe(row), 60)) for row in rows if row["id"].startswith(incomplete)]

    return complete


datasets = _ids("/datasets", lambda row: f"{row['name']}, {row['status']}", limit=MOST)
jobs = _ids("/jobs", lambda row: f"{row['type']}, {row['status']}", limit=MOST)
models = _ids("/models", lambda row: row["name"], limit=MOST)
objectives = _ids("/objectives", lambda row: str(row["description"]).split(". ")[0])
backbones = _ids("/backbones", lambda row: row["description"])
tasks = _ids("/tasks", lambda row: str(row["description"]).split(". ")[0])
keys = _ids("/api_keys", lambda row: f"{row['name']}, {' '.join(row['scopes'])}", limit=MOST)


def dataset_argument() -> Any:
    """An id of a dataset."""
    return _argument("dataset", "ds", datasets)


def job_argument() -> Any:
    """An id of a job."""
    return _argument("job", "job", jobs)


def model_argument() -> Any:
    """An id of a model."""
    return _argument("model", "mdl", models)


def key_argument() -> Any:
    """An id of a key."""
    return _argument("key", "key", keys)


def _argument(kind: str, prefix: str, complete: Callable[[str], Words]) -> Any:
    """It becomes a part of a path, so that nothing but an id may pass."""

    def check(value: str) -> str:
        if not re.fullmatch(rf"{prefix}_[A-Za-z0-9]+", value):
            raise typer.BadParameter(f"{value!r} is no id of a {kind}; they look like {prefix}_01jd3w8m6k")
        return value

    words = f"id of a {kind}, {prefix}_…"
    return typer.Argument(help=words, autocompletion=complete, metavar=kind.upper(), callback=check)


def attach_top(app: typer.Typer) -> None:
    """`completion`: the script, for shells that `--install-completion` does not recognise."""

    @app.command("completion", rich_help_panel="This machine")
    def completion(shell: Annotated[str, typer.Argument(help="bash, zsh, fish, powershell or pwsh")]) -> None:
        """Print the script that completes commands and ids at the tab key; `--install-completion` installs it."""
        from typer import completion as typers

        from groundwork.commands.failures import Failure, tell

        if shell not in SHELLS:
            raise typer.Exit(tell(Failure(f"{shell!r} is no shell that is known", f"use one of {', '.join(SHELLS)}")))
        script = typers.get_completion_script  # type: ignore[attr-defined]  # typer has it under no public name
        print(script(prog_name="groundwork", complete_var="_GROUNDWORK_COMPLETE", shell=shell))
