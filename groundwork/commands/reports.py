"""`groundwork reports`: how many labels a pretrained model saves, from label-efficiency jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from groundwork.commands import draw, job_details, job_views, watch
from groundwork.commands.command import Json, Terminal, command
from groundwork.commands.completion import job_argument
from groundwork.commands.failures import REFUSED, Failure

group = typer.Typer(name="reports", help="How many labels a pretrained model saves.", no_args_is_help=True)
Job = Annotated[str, job_argument()]
_TYPE = "label_efficiency"


@command(group, "list")
def list_reports(
    terminal: Terminal, limit: Annotated[int, typer.Option(min=1, max=10_000, help="at most so many")] = 20
) -> None:
    """Label-efficiency jobs, newest first."""
    rows = terminal.server.rows("/jobs", limit, type=_TYPE)
    empty = f"no reports; `groundwork jobs submit --type {_TYPE}` makes one"
    terminal.show(rows, lambda: [job_views.table(rows, empty)])


@command(group, "show")
def show(terminal: Terminal, job: Job) -> None:
    """The scores of every way to learn at every number of labels, and the labels saved."""
    _finished(terminal, job)
    report: Json = json.loads(terminal.server.text(f"/jobs/{job}/files/report.json"))
    terminal.show(report, lambda: drawn(report))


@command(group, "download")
def download(
    terminal: Terminal,
    job: Job,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for report.html, its picture and numbers")],
) -> None:
    """The report as a page, a picture and numbers."""
    _finished(terminal, job)
    rows = terminal.server.get(f"/jobs/{job}/files")["data"]
    job_details.save_all(terminal, [(row["path"], row["content_url"]) for row in rows], output)


def _finished(terminal: Terminal, job: str) -> None:
    found = terminal.server.get(f"/jobs/{job}")
    if found["type"] != _TYPE:
        raise Failure(f"{job} is a {found['type']} job and has no report", "`groundwork reports list`", REFUSED)
    if found["status"] in ("failed", "cancelled"):
        raise watch.failure(found)
    if found["status"] != "succeeded":
        raise Failure(f"{job} is {found['status']}", f"wait for it: `groundwork jobs watch {job}`", REFUSED)


def drawn(report: Json) -> list[Any]:
    """`report.json` in tables: arms by numbers of labels, then what each saves."""
    points = (point for curve in report["curves"].values() for point in curve)
    counts = sorted({_place(point) for point in points})
    columns = ("way to learn", *(f"{'all' if every else f'{number:,}'}>" for every, number in counts))
    lines = ((arm, *_scores(points, counts)) for arm, points in report["curves"].items())
    head = draw.facts({"score": report["metric"], **report["facts"]})
    parts: list[Any] = [head, draw.heading("score by labelled rows of each class"), draw.table(columns, lines)]
    saved = [row for row in report["labels_saved"] if row["saved"] is not None]
    if saved:
        rows = ((row["arm"], row["other"], _labels(row["labels"]), draw.number(row["saved"])) for row in saved)
        columns = ("way", "against", "labels>", "rows saved>")
        parts += [draw.heading("labels saved"), draw.table(columns, rows)]
    return parts


def _scores(points: list[Json], counts: list[tuple[bool, int]]) -> list[str]:
    known = {_place(point): point["mean"] for point in points}
    return [draw.number(known.get(each)) for each in counts]


def _place(point: Json) -> tuple[bool, int]:
    return point["labels"] is None, point["labels"] or 0


def _labels(labels: int | None) -> str:
    return "all" if labels is None else draw.count(labels)
