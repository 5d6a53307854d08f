"""What a run told and made: `events`, `logs`, `metrics`, `checkpoints`, `samples`, `files` under `groundwork jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundwork.commands import draw, moving
from groundwork.commands.command import Function, Json, Terminal, command
from groundwork.commands.completion import job_argument
from groundwork.commands.failures import REFUSED, Failure

Job = Annotated[str, job_argument()]
Folder = Annotated[Path | None, typer.Option("--output", "-o", help="download them into this folder")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="the newest of them, at most so many")]
MOST_LOG_PIECES = 1000


def attach(group: typer.Typer) -> None:
    """All of them under `jobs`."""
    for name, function in _COMMANDS.items():
        command(group, name)(function)


def events(terminal: Terminal, job: Job, limit: Limit = 50) -> None:
    """The job's diary, oldest first: state changes, messages, checkpoints, samples."""
    rows = terminal.server.rows(f"/jobs/{job}/events", limit)[::-1]
    lines = ((draw.clock(row["created_at"]), row["level"], row["code"], row["message"]) for row in rows)
    terminal.show(rows, lambda: [draw.table(("time", "level", "code", "message"), lines, "nothing happened yet")])


def logs(
    terminal: Terminal,
    job: Job,
    attempt: Annotated[int | None, typer.Option(min=1, help="default: the newest")] = None,
) -> None:
    """The raw output of the run."""
    pieces: list[Json] = []
    offset = 0
    while len(pieces) < MOST_LOG_PIECES:
        piece = terminal.server.get(f"/jobs/{job}/logs", attempt=attempt, offset=offset)
        pieces.append(piece)
        if not piece["text"]:
            break
        offset, attempt = piece["next_offset"], piece["attempt"]
    text = "".join(piece["text"] for piece in pieces)
    whole = {**pieces[0], "next_offset": offset, "text": text}
    terminal.show(whole, lambda: [draw.plain(text.rstrip("\n")) if text else draw.plain("no output yet")])


def metrics(
    terminal: Terminal,
    job: Job,
    series: Annotated[list[str] | None, typer.Argument(help="only these, such as train/loss")] = None,
    points: Annotated[int | None, typer.Option(min=1, help="thin each curve to so many points")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="all points as series,step,value")] = False,
) -> None:
    """Its curves: the last value of each, and a picture of it in a line."""
    path = f"/jobs/{job}/metrics"
    if csv and not terminal.as_json:
        print(terminal.server.text(path, series=series or None, points=points, format="csv"), end="")
        return
    found = terminal.server.get(path, series=series or None, points=points)
    missing = set(series or []) - {each["name"] for each in found["series"] if each["steps"]}
    if missing:
        raise Failure(f"{job} has no series {', '.join(sorted(missing))}", "leave the name out to see all", REFUSED)
    terminal.show(found, lambda: [_curves(found["series"])])


def checkpoints(terminal: Terminal, job: Job, limit: Limit = 20) -> None:
    """What it can resume from, newest first."""
    rows = terminal.server.rows(f"/jobs/{job}/checkpoints", limit)
    lines = (
        (row["id"], draw.count(row["step"]), row["attempt"], draw.size(row["bytes"]), draw.when(row["created_at"]))
        for row in rows
    )
    terminal.show(rows, lambda: [draw.table(("id", "step>", "attempt>", "size>", "created"), lines, "no checkpoint")])


def samples(terminal: Terminal, job: Job, limit: Limit = 20, output: Folder = None) -> None:
    """Pictures and texts that the run made to be looked at, newest first."""
    rows = terminal.server.rows(f"/jobs/{job}/samples", limit)
    if output is not None:
        named = [(f"{row['name']}-{row['step']:06d}{_ending(row['media_type'])}", row) for row in rows]
        save_all(terminal, [(name, row["content_url"]) for name, row in named], output)
        return
    lines = ((row["id"], draw.count(row["step"]), row["name"], row["media_type"], row["caption"]) for row in rows)
    columns = ("id", "step>", "name", "type", "caption")
    terminal.show(rows, lambda: [draw.table(columns, lines, "no samples yet")])


def files(terminal: Terminal, job: Job, output: Folder = None) -> None:
    """The files of its result: a report, scores, predictions, vectors."""
    rows = terminal.server.get(f"/jobs/{job}/files")["data"]
    if output is not None:
        save_all(terminal, [(row["path"], row["content_url"]) for row in rows], output)
        return
    lines = ((row["path"], draw.size(row["bytes"]), row["sha256"][:16]) for row in rows)
    terminal.show(rows, lambda: [draw.table(("path", "size>", "sha256"), lines, "no files until it has succeeded")])


def save_all(terminal: Terminal, named: list[tuple[str, str]], folder: Path) -> None:
    """Download (name, URL) pairs into a folder and say where they are. Raises Failure."""
    if not named:
        raise Failure("there are no files yet", "wait until the job has succeeded", REFUSED)
    made: list[Json] = []
    for name, url in named:
        goal = folder / name
        if not goal.resolve().is_relative_to(folder.resolve()):
            raise Failure(f"the server names a file outside of the folder: {name}", "do not trust it", REFUSED)
        goal.parent.mkdir(parents=True, exist_ok=True)
        made.append({"path": str(goal), "bytes": moving.quietly(terminal, url.removeprefix("/v1"), goal)})
    lines = ((each["path"], draw.size(each["bytes"])) for each in made)
    terminal.show(made, lambda: [draw.table(("file", "size>"), lines)])


def _curves(series: list[Json]) -> Any:
    lines = ((each["name"], len(each["steps"]), *_last(each), draw.sparkline(each["values"], 40)) for each in series)
    return draw.table(("series", "points>", "step>", "last>", "curve"), lines, "nothing was measured yet")


def _last(series: Json) -> tuple[str, str]:
    return draw.count(series["steps"][-1]), draw.number(float(series["values"][-1]))


def _ending(media_type: str) -> str:
    return {"text/plain": ".txt", "application/json": ".json"}.get(media_type, f".{media_type.rpartition('/')[2]}")


_COMMANDS: dict[str, Function] = {
    "events": events, "logs": logs, "metrics": metrics, "checkpoints": checkpoints, "samples": samples, "files": files,
}  # fmt: skip
