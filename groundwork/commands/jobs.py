"""`groundwork jobs`: look at them, steer them."""

from __future__ import annotations

from typing import Annotated

import typer

from groundwork.commands import draw, job_views
from groundwork.commands.command import Json, Terminal, command, pairs
from groundwork.commands.completion import job_argument

group = typer.Typer(name="jobs", help="Start trainings and other work, follow it, steer it.", no_args_is_help=True)
Job = Annotated[str, job_argument()]


@command(group, "list")
def list_jobs(
    terminal: Terminal,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="at most so many")] = 20,
    status: Annotated[str | None, typer.Option(help="running, queued, succeeded, failed, …")] = None,
    type: Annotated[str | None, typer.Option(help="pretrain, finetune, ingest, …; ingests only so")] = None,
    part_of: Annotated[str | None, typer.Option(help="the parts of this label-efficiency job")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE that they carry; repeat it")] = None,
) -> None:
    """The project's jobs, newest first."""
    wanted = {f"metadata[{name}]": value for name, value in pairs(metadata or [], "--metadata").items()}
    rows = terminal.server.rows("/jobs", limit, status=status, type=type, part_of=part_of, **wanted)
    terminal.show(rows, lambda: [job_views.table(rows)])


@command(group, "show")
def show(terminal: Terminal, job: Job) -> None:
    """One job: where it stands and what came out of it."""
    found = terminal.server.get(f"/jobs/{job}")
    terminal.show(found, lambda: [job_views.sheet(found)])


@command(group, "cancel")
def cancel(terminal: Terminal, job: Job) -> None:
    """End a job; it saves what it has and lets go."""
    _steer(terminal, job, "cancel")


@command(group, "pause")
def pause(terminal: Terminal, job: Job) -> None:
    """Stop a job and keep its last checkpoint."""
    _steer(terminal, job, "pause")


@command(group, "resume")
def resume(terminal: Terminal, job: Job) -> None:
    """Let a paused job go on from its last checkpoint."""
    _steer(terminal, job, "resume")


def _steer(terminal: Terminal, job: str, verb: str) -> None:
    found: Json = terminal.server.post(f"/jobs/{job}/{verb}")
    terminal.show(found, lambda: [draw.plain(f"{job} is {found['status']}")])
