"""Bytes on their way, and waiting: bars where a person looks, nothing where a program reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from groundwork.commands import draw
from groundwork.commands.command import Json, Terminal
from groundwork.commands.failures import Failure

Say = Callable[[str], None]
Move = Callable[[int, int], None]
POLL_SECONDS = 0.5


@contextmanager
def waiting(terminal: Terminal, words: str) -> Iterator[Say]:
    """A spinner; what is said replaces its words."""
    if not terminal.lively:
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True, markup=False).status(draw.plain(words)) as status:
        yield lambda more: status.update(draw.plain(more))


@contextmanager
def going_on(terminal: Terminal, words: str) -> Iterator[None]:
    """What a person who interrupts the wait is told: it goes on without them."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.note(words)
        raise


@contextmanager
def sending(terminal: Terminal, file: Path) -> Iterator[Move]:
    """A bar of how much of the file is sent; yields what is to be called with the bytes so far, and in all."""
    with _bar(terminal, f"sending {file.name}") as move:
        yield move


def fetch(terminal: Terminal, path: str, goal: Path, **query: str) -> None:
    """Download `/v1<path>` into a file and say where it is."""
    done = quietly(terminal, path, goal, **query)
    terminal.show({"path": str(goal), "bytes": done}, lambda: [draw.plain(f"{goal}   ({draw.size(done)})")])


def quietly(terminal: Terminal, path: str, goal: Path, **query: str) -> int:
    """The same without a word at the end; the bytes."""
    with _bar(terminal, f"fetching {goal.name}") as move:
        return terminal.server.save(path, goal, move, **query)


def target(output: Path | None, name: str) -> Path:
    """Where a file of this name goes: the output itself, or into it where that is a folder. Raises Failure."""
    plain_name = Path(name).name or "download"
    goal = output if output is not None and not output.is_dir() else (output or Path()) / plain_name
    if not goal.parent.is_dir():
        raise Failure(f"there is no folder {goal.parent}", "make it, or choose another with -o")
    if output is None and goal.exists():
        raise Failure(f"{goal} is there already", "say where it is to go with -o, which overwrites")
    return goal


def until_ended(terminal: Terminal, job: str) -> Json:
    """The job once it has ended, however it ended."""
    on = f"{job} goes on; `groundwork jobs watch {job}` follows it"
    with going_on(terminal, on), waiting(terminal, f"{job} waits") as say:
        while True:
            found = terminal.server.look(f"/jobs/{job}")
            if found["status"] in ("succeeded", "failed", "cancelled"):
                return found
            say(f"{job}: {found['status']} {(found['progress'] or {}).get('stage') or ''}")
            time.sleep(POLL_SECONDS)


@contextmanager
def _bar(terminal: Terminal, words: str) -> Iterator[Move]:
    if not terminal.lively:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True, markup=False)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(draw.clean(words), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=None if total < 0 else total)
