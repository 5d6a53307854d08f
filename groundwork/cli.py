"""The command line: `groundwork --help`. A command imports the server code it needs: a client-only install works."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from groundwork.commands.command import AsJson, Key, Url, attempt, opened
from groundwork.commands.failures import INTERRUPTED, USAGE, Failure, tell
from groundwork.commands.starting import documented, start
from groundwork.commands.tree import attach

app = typer.Typer(
    name="groundwork",
    help="Self-supervised pretraining as a service: a server, and the commands that talk to one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)  # fmt: skip
keys = typer.Typer(name="keys", help="API keys: make them, list them, end them.", no_args_is_help=True)
attach(app, keys)
app.add_typer(keys, rich_help_panel="Work")
_SERVER = "Run a server"


@app.callback()
def everywhere(ctx: typer.Context, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Self-supervised pretraining as a service: a server, and the commands that talk to one."""
    ctx.obj = {"as_json": as_json, "url": url, "key": key}


@app.command(rich_help_panel=_SERVER)
def serve(
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="everything is in it")] = Path("data"),
    host: Annotated[str, typer.Option(envvar="GROUNDWORK_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="GROUNDWORK_PORT", min=0, max=65535, help="0 = any free one")] = 8420,
) -> None:
    """Everything in one: broker, API, worker and inference, on an embedded default."""

    def run() -> int:
        from groundwork.serve import serve as run_serve

        return run_serve(data_dir, host, port)

    start("all", run)


@app.command(rich_help_panel=_SERVER)
def api() -> None:
    """The API role. Settings: environment, prefix GROUNDWORK_."""

    def run() -> int:
        from groundwork.roles import run_api

        return run_api()

    start("api", run)


@app.command(rich_help_panel=_SERVER)
def worker() -> None:
    """A worker: claims jobs and runs the engine."""

    def run() -> int:
        from groundwork.roles import run_worker

        return run_worker()

    start("worker", run)


@app.command(rich_help_panel=_SERVER)
def inference() -> None:
    """The inference role: embeddings and predictions of finished models."""

    def run() -> int:
        from groundwork.roles import run_inference

        return run_inference()

    start("worker", run)


@app.command(rich_help_panel=_SERVER)
def migrate(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Bring the database's schema up to date; on an empty one, make the first project and print its key once."""

    def run() -> int:
        from groundwork.roles import run_migrate

        return run_migrate()

    start("api", documented(run, opened(ctx, as_json).as_json))


@keys.command("create")
def create_key(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Option(help="shown in the list of keys")] = "from the command line",
    scopes: Annotated[str, typer.Option(help="some of read, write, admin, separated by commas")] = "read,write,admin",
    project: Annotated[str | None, typer.Option(help="project id; without it the first project")] = None,
    data_dir: Annotated[Path | None, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Print a new key. Over HTTP where --url, GROUNDWORK_URL or a login says where the server is.

    With --data-dir, --project, or where none is known, straight from the database: that needs the API's settings, or
    the data folder of `groundwork serve`, and is the way back in when the last key is lost.
    """
    from groundwork.commands.keys import create as create_over_http
    from groundwork.commands.places import is_known

    terminal = opened(ctx, as_json, url, key)
    if data_dir is None and project is None and is_known(terminal.url):
        raise typer.Exit(attempt(lambda: create_over_http(terminal, name, scopes), terminal))

    def run() -> int:
        from groundwork.roles import create_key as create

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir or Path("data"))
        return create(name, scopes, project)

    start("api", documented(run, terminal.as_json, "key"))


@app.command(rich_help_panel=_SERVER)
def gc(
    ctx: typer.Context,
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`")] = Path("data"),
    grace_hours: Annotated[float, typer.Option(min=0, help="an object must have had no owner for so long")] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be deleted")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete objects in the store that nothing owns; every API does so by itself every six hours."""

    def run() -> int:
        from groundwork.roles import collect_garbage

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
        return collect_garbage(grace_hours, dry_run)

    start("api", documented(run, opened(ctx, as_json).as_json))


@app.command(rich_help_panel=_SERVER)
def backup(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="a new folder, or one of an earlier backup, which is renewed")],
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Copy database and store into a folder, also while everything runs. PostgreSQL: needs pg_dump."""

    def run() -> int:
        from groundwork.roles import make_backup

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
        return make_backup(target)

    start("api", documented(run, opened(ctx, as_json).as_json))


@app.command(rich_help_panel=_SERVER)
def restore(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(help="a folder that `groundwork backup` has made")],
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="to be filled")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Fill an empty database and store from a backup; jobs that ran go on from their last checkpoint."""

    def run() -> int:
        from groundwork.roles import restore_backup

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
        return restore_backup(source)

    start("api", documented(run, opened(ctx, as_json).as_json))


@app.command(rich_help_panel="This machine")
def doctor(
    ctx: typer.Context,
    data_dir: Annotated[
        Path | None, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`; default: data")
    ] = None,
    *,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Look at database, schema, clock, store, broker, API, inference and device, and say what to do.

    With --url, or a server elsewhere that a login or GROUNDWORK_URL names: that server as it is seen from here.
    """
    from groundwork.commands.places import data_folder, is_known

    terminal = opened(ctx, as_json, url, key)
    here = data_dir is not None or (data_folder() / "secrets.json").exists()

    def run() -> int:
        from groundwork.doctor import examine, report

        if terminal.url or (not here and is_known(terminal.url)):
            from groundwork.commands.health import examine as examine_from_here

            return report(examine_from_here(terminal), terminal.as_json)
        return report(examine(data_dir or Path("data")), terminal.as_json)

    start("api", run)


@app.command(rich_help_panel="This machine")
def version(ctx: typer.Context, as_json: AsJson = False) -> None:
    """What is installed, role by role."""

    def run() -> int:
        from groundwork.version import describe

        lines = describe().splitlines()
        print(json.dumps({"installed": lines}) if opened(ctx, as_json).as_json else "\n".join(lines))
        return 0

    start("", run)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `groundwork` script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal of another century has no blocks to draw with
    try:
        status = app(arguments, prog_name="groundwork", standalone_mode=False)
    except _UsageError as error:
        status = _misused(error)
    except (typer.Abort, KeyboardInterrupt):
        print("groundwork: interrupted", file=sys.stderr)
        status = INTERRUPTED
    if status == INTERRUPTED:
        # The interpreter would wait for the threads that send parts of an upload, each for a minute.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.exit(status or 0)


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # its module depends on typer's version


def _misused(error: Exception) -> int:
    """What cannot be meant so, in one line; a group without a command shows what it has."""
    words = error.format_message()  # type: ignore[attr-defined]
    context = error.ctx  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        print(words, end="\n" if words else "")
        return USAGE
    path = context.command_path if context is not None else "groundwork"
    return tell(Failure(words, f"`{path} --help` shows how it is meant"))


if __name__ == "__main__":
    main()
