"""`groundwork models`: what jobs have trained; take it home, bring public ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundwork.commands import draw, folders, job_views, moving, watch
from groundwork.commands.command import Json, Terminal, command, pairs
from groundwork.commands.completion import model_argument
from groundwork.commands.failures import Failure

group = typer.Typer(name="models", help="What was trained: look, download, import.", no_args_is_help=True)
Model = Annotated[str, model_argument()]
FORMATS = ("native", "hf", "onnx")
_COLUMNS = ("id", "name", "kind", "modality", "backbone", "learned", "parameters>", "created")


@command(group, "list")
def list_models(
    terminal: Terminal, limit: Annotated[int, typer.Option(min=1, max=10_000, help="at most so many")] = 20
) -> None:
    """The project's models, newest first."""
    rows = terminal.server.rows("/models", limit)
    lines = (
        (row["id"], draw.clip(row["name"], 40), row["kind"], row["modality"], row["backbone"],
         row["task"] or row["objective"], draw.millions(row["parameters"]), draw.when(row["created_at"]))
        for row in rows
    )  # fmt: skip
    terminal.show(rows, lambda: [draw.table(_COLUMNS, lines, "no models; `groundwork pretrain DATASET` makes one")])


@command(group, "show")
def show(terminal: Terminal, model: Model) -> None:
    """One model: its card, what it came from, its scores."""
    row = terminal.server.get(f"/models/{model}")
    terminal.show(row, lambda: _card(row))


@command(group, "rename")
def rename(
    terminal: Terminal,
    model: Model,
    name: Annotated[str | None, typer.Argument(help="its new name")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; replaces all of its metadata")] = None,
) -> None:
    """Give a model another name, or other metadata."""
    body: Json = {} if name is None else {"name": name}
    if metadata is not None:
        body["metadata"] = pairs(metadata, "--metadata")
    if not body:
        raise Failure("there is nothing to change", "give a new NAME or --metadata")
    row = terminal.server.patch(f"/models/{model}", body)
    terminal.show(row, lambda: [draw.plain(f"{model} is called {row['name']}")])


@command(group, "delete")
def delete(
    terminal: Terminal, model: Model, yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False
) -> None:
    """Delete a model and its files."""
    terminal.confirm(f"Delete {model} and its files?", yes)
    gone = terminal.server.delete(f"/models/{model}")
    terminal.show(gone, lambda: [draw.plain(f"deleted {model}")])


@command(group, "download")
def download(
    terminal: Terminal,
    model: Model,
    format: Annotated[
        str, typer.Option(help="native, hf (transformers) or onnx; these two are made first")
    ] = "native",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file or folder; default: its name")] = None,
) -> None:
    """Download a model as one zip."""
    if format not in FORMATS:
        raise Failure(f"--format {format!r} is not known", f"use {', '.join(FORMATS)}")
    name = terminal.server.get(f"/models/{model}")["name"]
    goal = moving.target(output, f"{name.replace('/', '-')}{'' if format == 'native' else f'-{format}'}.zip")
    try:
        moving.fetch(terminal, f"/models/{model}/download", goal, format=format)
    except Failure as refused:
        if refused.code != "not_exported":
            raise
        _export(terminal, model, format)
        moving.fetch(terminal, f"/models/{model}/download", goal, format=format)


@command(group, "import")
def import_model(
    terminal: Terminal,
    source: Annotated[str, typer.Argument(help="zip or folder of config.json, safetensors, tokenizer; or OWNER/NAME")],
    *,
    name: Annotated[str | None, typer.Option(help="default: the file's or the repository's name")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="SOURCE is a repository, if the server allows it")] = False,
    revision: Annotated[str | None, typer.Option(help="of the repository")] = None,
    least_share: Annotated[float | None, typer.Option(min=0.5, max=1, help="of the tensors that must match")] = None,
    follow: Annotated[bool, typer.Option("--watch", "-w", help="follow the import until it has ended")] = False,
) -> int:
    """Import a public model: a job reads it, and its result names the model."""
    given = {"name": name, "least_share": least_share}
    body = {field: value for field, value in given.items() if value is not None}
    if hub:
        job = terminal.server.post("/models", {"hub": source, **body, **({"revision": revision} if revision else {})})
    else:
        job = _send(terminal, Path(source), body)
    if follow:
        return watch.follow(terminal, job["id"])
    terminal.show(job, lambda: [job_views.sheet(job)])
    return 0


def _send(terminal: Terminal, path: Path, body: Json) -> Json:
    form = {"name": path.resolve().name, **body} if path.is_dir() else body
    server = terminal.server
    with folders.as_file(path) as file, moving.sending(terminal, file) as sent:
        return server.send_model(file, form, sent)


def _export(terminal: Terminal, model: str, format: str) -> None:
    job = terminal.server.post("/jobs", {"type": "export", "model": model, "format": format})
    terminal.note(f"{model} is being written as {format} ({job['id']})")
    ended = moving.until_ended(terminal, job["id"])
    if ended["status"] != "succeeded":
        raise watch.failure(ended)


def _card(row: Json) -> list[Any]:
    lineage, card = row["lineage"], row["card"] or {}
    sheet = {
        "id": row["id"], "name": row["name"], "kind": row["kind"], "modality": row["modality"],
        "backbone": row["backbone"], "objective": row["objective"], "task": row["task"],
        "classes": draw.clip(", ".join(row["classes"]), 200), "parameters": draw.millions(row["parameters"]),
        "embedding": f"{row['embedding_dimensions']} numbers", "reads": _reads(row), "size": draw.size(row["bytes"]),
        "in 8 bits": _coarse(card.get("int8")),
        "digest": row["digest"], "created": draw.when(row["created_at"]), "metadata": row["metadata"],
    }  # fmt: skip
    came = {
        "job": lineage.get("job"), "base model": lineage.get("base_model"), "seed": lineage.get("seed"),
        "minutes": card.get("minutes"), "software": _versions(card.get("software")),
    }  # fmt: skip
    came |= {f"{each['role']}": each["id"] for each in lineage.get("datasets", [])}
    parts: list[Any] = [draw.facts(sheet), draw.heading("came from"), draw.facts(came)]
    return [*parts, draw.heading("scores"), draw.facts(draw.metrics(row["metrics"]))] if row["metrics"] else parts


def _reads(row: Json) -> str | None:
    return f"{draw.count(row['max_length'])} tokens at most" if row["max_length"] else None


def _coarse(told: Any) -> str | None:
    if not isinstance(told, dict):
        return None
    return str(told["why"]) if "why" in told else f"cosine {told['cosine']:.4f} or more, on {told['rows']} rows"


def _versions(software: Any) -> str | None:
    return ", ".join(f"{name} {version}" for name, version in software.items()) if isinstance(software, dict) else None
