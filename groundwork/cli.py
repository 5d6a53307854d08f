"""The command line: `groundwork --help`. A command imports the server code it needs: a client-only install works."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="groundwork",
    help="Self-supervised pretraining as a service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
keys = typer.Typer(help="API keys, straight from the database.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@app.command()
def serve(
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="everything is in it")] = Path("data"),
    host: Annotated[str, typer.Option(envvar="GROUNDWORK_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="GROUNDWORK_PORT", min=0, max=65535, help="0 = any free one")] = 8420,
) -> None:
    """Everything in one: broker, API, worker and inference, on an embedded default."""

    def run() -> int:
        from groundwork.serve import serve as run_serve

        return run_serve(data_dir, host, port)

    _run("all", run)


@app.command()
def api() -> None:
    """The API role. Settings: environment, prefix GROUNDWORK_."""

    def run() -> int:
        from groundwork.roles import run_api

        return run_api()

    _run("api", run)


@app.command()
def worker() -> None:
    """A worker: claims jobs and runs the engine."""

    def run() -> int:
        from groundwork.roles import run_worker

        return run_worker()

    _run("worker", run)


@app.command()
def inference() -> None:
    """The inference role: embeddings and predictions of finished models."""

    def run() -> int:
        from groundwork.roles import run_inference

        return run_inference()

    _run("worker", run)


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date; on an empty one, make the first project and print its key once."""

    def run() -> int:
        from groundwork.roles import run_migrate

        return run_migrate()

    _run("api", run)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="shown in the list of keys")] = "from the command line",
    scopes: Annotated[str, typer.Option(help="some of read, write, admin, separated by commas")] = "read,write,admin",
    project: Annotated[str | None, typer.Option(help="project id; without it the first project")] = None,
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`")] = Path("data"),
) -> None:
    """Print a new key. Needs the API's settings and its database, or the data folder of `groundwork serve`."""

    def run() -> int:
        from groundwork.roles import create_key as create

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
        return create(name, scopes, project)

    _run("api", run)


@app.command()
def gc(
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`")] = Path("data"),
    grace_hours: Annotated[float, typer.Option(min=0, help="an object must have had no owner for so long")] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be deleted")] = False,
) -> None:
    """Delete objects in the store that nothing owns; every API does so by itself every six hours."""

    def run() -> int:
        from groundwork.roles import collect_garbage

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
        return collect_garbage(grace_hours, dry_run)

    _run("api", run)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="a new folder, or one of an earlier backup, which is renewed")],
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`")] = Path("data"),
) -> None:
    """Copy database and store into a folder, also while everything runs. PostgreSQL: needs pg_dump."""

    def run() -> int:
        from groundwork.roles import make_backup

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
        return make_backup(target)

    _run("api", run)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="a folder that `groundwork backup` has made")],
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="to be filled")] = Path("data"),
) -> None:
    """Fill an empty database and store from a backup; jobs that ran go on from their last checkpoint."""

    def run() -> int:
        from groundwork.roles import restore_backup

        os.environ["GROUNDWORK_DATA_DIR"] = str(data_dir)
        return restore_backup(source)

    _run("api", run)


@app.command()
def doctor(
    data_dir: Annotated[Path, typer.Option(envvar="GROUNDWORK_DATA_DIR", help="of `groundwork serve`")] = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Look at database, schema, clock, store, broker, API, inference and device, and say what to do."""

    def run() -> int:
        from groundwork.doctor import examine, report

        return report(examine(data_dir), as_json)

    _run("api", run)


@app.command()
def version() -> None:
    """What is installed, role by role."""

    def run() -> int:
        from groundwork.version import describe

        print(describe())
        return 0

    _run("", run)


def main() -> None:
    """Entry point of the `groundwork` script."""
    app()


def _run(extra: str, role: Callable[[], int]) -> None:
    """Run a role; what stops it from starting is one line on stderr and a status other than 0 (B82)."""
    from groundwork.folder import Refusal

    try:
        status = role()
    except Refusal as refusal:
        print(f"groundwork: {refusal}", file=sys.stderr)
        status = 2
    except ModuleNotFoundError as error:
        if error.name in _OURS or not extra:
            raise
        line = f"{error.name} is not installed; this command needs: pip install 'groundwork[{extra}]'"
        print(f"groundwork: {line}", file=sys.stderr)
        status = 3
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)


_OURS = ("app", "worker", "ssl_core", "groundwork", "migrations")

if __name__ == "__main__":
    main()
