"""`groundwork objectives`, `backbones`, `tasks`: what can be learned, with what, towards what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from groundwork.commands import draw
from groundwork.commands.command import Json, Terminal, command
from groundwork.commands.failures import REFUSED, Failure

Modality = Annotated[str | None, typer.Option(help="only what fits text, image, audio, …")]
Name = Annotated[str | None, typer.Argument(help="show this one with its fields")]


def attach_top(app: typer.Typer) -> None:
    """All three."""
    command(app, "objectives", "What there is")(objectives)
    command(app, "backbones", "What there is")(backbones)
    command(app, "tasks", "What there is")(tasks)


def objectives(terminal: Terminal, name: Name = None, modality: Modality = None) -> None:
    """What can be learned without labels; with a NAME its fields, defaults and bounds."""
    _show(terminal, "objective", name, modality)


def backbones(terminal: Terminal, name: Name = None, modality: Modality = None) -> None:
    """The encoders there are; with a NAME its shape."""
    _show(terminal, "backbone", name, modality)


def tasks(terminal: Terminal, name: Name = None, modality: Modality = None) -> None:
    """What can be learned from labels; with a NAME its fields, defaults and bounds."""
    _show(terminal, "task", name, modality)


def _show(terminal: Terminal, kind: str, name: str | None, modality: str | None) -> None:
    rows = terminal.server.get(f"/{kind}s", modality=modality)["data"]
    if name is None:
        lines = ((row["name"], ", ".join(row["modalities"]), draw.clip(_words(row), 100)) for row in rows)
        terminal.show(rows, lambda: [draw.table((kind, "modalities", "what it is"), lines, "none fits")])
        return
    found = next((row for row in rows if row["name"] == name), None)
    if found is None:
        known = ", ".join(row["name"] for row in rows)
        raise Failure(f"there is no {kind} {name!r}", f"use one of {known}", REFUSED)
    terminal.show(found, lambda: _one(found))


def _one(row: Json) -> list[Any]:
    schema = row["parameters"]
    fields = schema.get("properties") or schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]
    lines = (
        (name, _kind(field), row["defaults"].get(name, "required"), field.get("description"))
        for name, field in fields.items()
        if name != "name"
    )
    head = draw.facts(
        {
            "name": row["name"], "what": _words(row), "modalities": ", ".join(row["modalities"]),
            "encoders": ", ".join(row.get("encoders") or []), "paper": row.get("paper"),
        }
    )  # fmt: skip
    return [head, draw.heading("fields"), draw.table(("field", "allowed", "default", "meaning"), lines, "none")]


def _kind(field: Json) -> str:
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " | ".join(_kind(each) for each in field["anyOf"])
    bounds = [f"{sign} {field[name]}" for name, sign in _BOUNDS if name in field]
    return " ".join([str(field.get("const", field.get("type", "object"))), ", ".join(bounds)]).strip()


_BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


def _words(row: Json) -> str:
    """The first sentence; of an encoder its shape."""
    if row["object"] == "backbone":
        shape = row["defaults"]
        return f"{row['family']}, {shape['width']} wide, {shape['depth']} deep"
    return str(row["description"]).split(". ")[0].rstrip(".")
