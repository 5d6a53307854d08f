"""`groundwork datasets`: bring data, see what was understood of it, take it away again."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from groundwork.commands import draw, folders, moving
from groundwork.commands.command import Json, Terminal, command, pairs
from groundwork.commands.completion import dataset_argument
from groundwork.commands.failures import REFUSED

group = typer.Typer(name="datasets", help="Bring data, see what was understood of it.", no_args_is_help=True)
Dataset = Annotated[str, dataset_argument()]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="at most so many")]
POLL_SECONDS = 0.5
_COLUMNS = ("id", "name", "modality", "status", "rows>", "labelled>", "bad>", "size>", "created")


@command(group, "upload")
def upload(
    terminal: Terminal,
    path: Annotated[Path, typer.Argument(help="a file, or a folder of pictures, sounds or texts")],
    *,
    name: Annotated[str | None, typer.Option(help="default: the file's name")] = None,
    modality: Annotated[str | None, typer.Option(help="default: told from the bytes")] = None,
    columns: Annotated[list[str] | None, typer.Option(help="OURS=YOURS, such as text=body; repeat it")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of your own; repeat it")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="until it is ready")] = False,
    resume: Annotated[str | None, typer.Option(help="id of an upload that broke off; of the same file")] = None,
) -> int:
    """Upload a file or a folder as a dataset. A folder is packed on the way; its sub-folders are the labels."""
    fields: Json = {"name": name or (path.resolve().name if path.is_dir() else None), "modality": modality}
    fields |= {"columns": pairs(columns or [], "--columns"), "metadata": pairs(metadata or [], "--metadata")}
    form = {field: value for field, value in fields.items() if value}
    server = terminal.server
    with (
        _resumable(terminal, path, resume) as began,
        _packed(terminal, path) as file,
        moving.sending(terminal, file) as sent,
    ):
        made = server.upload(file, form, sent, resume, began, path)
    if wait:
        made = until_ready(terminal, made["id"])
    terminal.show(made, lambda: [_sheet(made), *_next(made)])
    return REFUSED if made["status"] == "invalid" else 0


@command(group, "list")
def list_datasets(
    terminal: Terminal,
    limit: Limit = 20,
    status: Annotated[str | None, typer.Option(help="uploaded, ingesting, ready or invalid")] = None,
    modality: Annotated[str | None, typer.Option(help="text, image, audio, …")] = None,
) -> None:
    """The project's datasets, newest first."""
    rows = terminal.server.rows("/datasets", limit, status=status, modality=modality)
    lines = (
        (row["id"], draw.clip(row["name"], 40), row["modality"], row["status"],
         *map(draw.count, (row["rows"], row["labelled"], row["bad_rows"])),
         draw.size(row["bytes"]), draw.when(row["created_at"]))
        for row in rows
    )  # fmt: skip
    terminal.show(rows, lambda: [draw.table(_COLUMNS, lines, "no datasets; `groundwork datasets upload FILE`")])


@command(group, "show")
def show(terminal: Terminal, dataset: Dataset) -> None:
    """One dataset: its state, and what was counted."""
    row = terminal.server.get(f"/datasets/{dataset}")
    terminal.show(row, lambda: [_sheet(row)])


@command(group, "preview")
def preview(terminal: Terminal, dataset: Dataset) -> None:
    """The first rows as they were understood."""
    found = terminal.server.get(f"/datasets/{dataset}/preview")
    terminal.show(found, lambda: [_rows(found["rows"])])


@command(group, "profile")
def profile(terminal: Terminal, dataset: Dataset) -> None:
    """Counts, lengths, classes, duplicates."""
    found = terminal.server.get(f"/datasets/{dataset}/profile")
    terminal.show(found, lambda: _profile(found))


@command(group, "errors")
def errors(terminal: Terminal, dataset: Dataset) -> None:
    """The rows that were left out, and why."""
    found = terminal.server.get(f"/datasets/{dataset}/errors")
    lines = ((row["file"], row["row"], row["code"], row["message"]) for row in found["data"])
    more = draw.plain("… and more than are kept") if found["has_more"] else None
    terminal.show(found, lambda: [draw.table(("file", "row>", "code", "message"), lines, "no bad rows"), more])


@command(group, "delete")
def delete(
    terminal: Terminal, dataset: Dataset, yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False
) -> None:
    """Delete a dataset and its bytes. Models that learned from it stay."""
    terminal.confirm(f"Delete {dataset} and its bytes?", yes)
    gone = terminal.server.delete(f"/datasets/{dataset}")
    models = f"; models that learned from it stay: {', '.join(gone['models'])}" if gone["models"] else ""
    terminal.show(gone, lambda: [draw.plain(f"deleted {dataset}{models}")])


@command(group, "content")
def content(
    terminal: Terminal,
    dataset: Dataset,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file or folder; default: its own name")] = None,
) -> None:
    """Download the file as it was uploaded."""
    row = terminal.server.get(f"/datasets/{dataset}")
    target = moving.target(output, row["filename"])
    moving.fetch(terminal, f"/datasets/{dataset}/content", target)


def until_ready(terminal: Terminal, dataset: str) -> Json:
    """The dataset once its ingest is over. Raises Failure of the server."""
    on = f"{dataset} is read on; `groundwork datasets show {dataset}` says how it stands"
    with moving.going_on(terminal, on), moving.waiting(terminal, f"{dataset} is being read") as say:
        while True:
            row = terminal.server.look(f"/datasets/{dataset}")
            if row["status"] in ("ready", "invalid"):
                return row
            say(f"{dataset}: {row['status']}")
            time.sleep(POLL_SECONDS)


@contextmanager
def _resumable(terminal: Terminal, path: Path, resume: str | None) -> Iterator[Callable[[str], None]]:
    """Notes the id of an upload as soon as there is one, and how to go on with it where a person interrupts it."""
    ids = [] if resume is None else [resume]

    def began(id: str) -> None:
        ids.append(id)
        terminal.note(f"upload {id}: --resume {id} goes on with it if it breaks off")

    try:
        yield began
    except KeyboardInterrupt:
        for id in ids:
            again = f"`groundwork datasets upload {shlex.quote(str(path))} --resume {id}`"
            terminal.note(f"what arrived of upload {id} is kept for a day; {again} goes on with it")
        raise


@contextmanager
def _packed(terminal: Terminal, path: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        with moving.waiting(terminal, f"packing {path}") as say:
            file = stack.enter_context(folders.as_file(path, lambda n: say(f"packing {path}: {n:,} files")))
        yield file


def _sheet(row: Json) -> Any:
    error = row["error"] or {}
    where = f" ({error['param']})" if error.get("param") else ""
    return draw.facts(
        {
            "id": row["id"], "name": row["name"], "status": row["status"], "modality": row["modality"],
            "rows": _counted(row), "bad rows": _bad(row), "file": f"{row['filename']}, {draw.size(row['bytes'])}",
            "columns": row["columns"], "metadata": row["metadata"], "digest": row["digest"],
            "created": draw.when(row["created_at"]), "ingest job": row["job"],
            "error": f"{error['code']}: {error['message']}{where}" if error else None,
        }
    )  # fmt: skip


def _counted(row: Json) -> str | None:
    if row["rows"] is None:
        return None
    labelled = f", {draw.count(row['labelled'])} labelled" if row["labelled"] else ""
    return draw.count(row["rows"]) + labelled


def _bad(row: Json) -> str | None:
    return f"{draw.count(row['bad_rows'])} (`groundwork datasets errors {row['id']}`)" if row["bad_rows"] else None


def _next(row: Json) -> list[Any]:
    if row["status"] == "invalid":
        return [draw.plain(f"\nIt cannot be used; `groundwork datasets errors {row['id']}` says what is wrong.")]
    if row["status"] == "ready":
        return []
    return [draw.plain(f"\nIt is being read; look again with `groundwork datasets show {row['id']}`.")]


def _rows(rows: list[Json]) -> Any:
    names = sorted({name for row in rows for name in row}, key=_last)
    return draw.table(names, ([_shown(row.get(name)) for name in names] for row in rows), "no rows")


def _last(name: str) -> tuple[int, str]:
    return ({"label": 1, "source": 2}.get(name, 0), name)


def _shown(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("data:"):
        return f"({value[5:].partition(';')[0]}, {draw.size(len(value))})"
    if isinstance(value, str | list | dict):
        return draw.clip(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 80)
    return value


def _profile(found: Json) -> list[Any]:
    counts = found.get("class_counts") or {}
    shown = {"object", "id", "classes", "class_counts", "targets", "lengths"}
    sheet = {name.replace("_", " "): value for name, value in found.items() if name not in shown}
    lengths = found.get("lengths") or {}
    sheet["lengths"] = ", ".join(f"{name} {draw.count(round(value))}" for name, value in lengths.items())
    parts: list[Any] = [draw.facts({name: _plain_number(value) for name, value in sheet.items()})]
    if counts:
        parts += [draw.heading(f"{len(counts)} classes"), _classes(counts)]
    for name, target in (found.get("targets") or {}).items():
        parts += [draw.heading(f"target {name}"), draw.facts({"rows": target["rows"], **target.get("numbers", {})})]
        parts += [_classes(target["class_counts"])] if target.get("class_counts") else []
    return parts


def _classes(counts: dict[str, int]) -> Any:
    most = max(counts.values()) or 1
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return draw.table(("class", "rows>", ""), ((name, draw.count(n), draw.bar(n / most)) for name, n in ordered))


def _plain_number(value: Any) -> Any:
    return draw.count(value) if isinstance(value, int) and not isinstance(value, bool) else value
