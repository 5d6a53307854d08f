"""Commands that run server code on this machine: what stops one is one line, and its words may be a document."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable

import typer

from groundwork.commands.failures import INTERRUPTED, NO_EXTRA, USAGE
from groundwork.folder import Refusal

_OURS = ("app", "worker", "ssl_core", "groundwork", "migrations")


def start(extra: str, role: Callable[[], int]) -> None:
    """Run a role; what stops it from starting is one line on stderr and a status other than 0 (B82).

    Args:
        extra: the installation that it needs, `api` or `worker`.

    Raises:
        typer.Exit: always, with the status.
    """
    try:
        status = role()
    except Refusal as refusal:
        print(f"groundwork: {refusal}", file=sys.stderr)
        status = USAGE
    except ModuleNotFoundError as error:
        if error.name in _OURS or not extra:
            raise
        line = f"{error.name} is not installed; this command needs: pip install 'groundwork[{extra}]'"
        print(f"groundwork: {line}", file=sys.stderr)
        status = NO_EXTRA
    except KeyboardInterrupt:
        status = INTERRUPTED
    raise typer.Exit(status)


def documented(role: Callable[[], int], as_json: bool, name: str = "message") -> Callable[[], int]:
    """The same role; with `as_json` what it prints is the text of one field of a JSON document."""
    if not as_json:
        return role

    def run() -> int:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            status = role()
        if status == 0:
            print(json.dumps({name: printed.getvalue().strip() or None}, ensure_ascii=False))
        return status

    return run
