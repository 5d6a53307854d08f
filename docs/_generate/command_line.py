"""Every command with its options, from the program that `groundwork` runs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from docs._generate.schema import cell
from groundwork.cli import app

_KINDS: dict[Any, str] = {Path: "path", int: "whole number", float: "number", str: "text", bool: ""}


def pages() -> dict[str, str]:
    """One page."""
    parts = ["# Every command", "The same as `groundwork COMMAND --help` says, on one page."]
    root = typer.main.get_command(app)
    parts += [part for path, command in _commands(root, "groundwork") for part in _command(path, command)]
    return {"reference/commands.md": "\n\n".join(parts)}


def _commands(command: Any, path: str) -> list[tuple[str, Any]]:
    """(full name, command) of every command that does something, in the program's own order."""
    inside = getattr(command, "commands", None)
    if inside is None:
        return [(path, command)]
    return [found for name, one in inside.items() if not one.hidden for found in _commands(one, f"{path} {name}")]


def _command(path: str, command: Any) -> list[str]:
    rows = [_row(one) for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    table = ["| | takes | left out | meaning |", "|---|---|---|---|", *rows]
    return [f"## {path}", command.help or "", "\n".join(table) if rows else ""]


def _row(one: Any) -> str:
    argument = one.param_type_name == "argument"
    names = ", ".join(f"`{name}`" for name in ([one.name.upper()] if argument else [*one.opts, *one.secondary_opts]))
    default = "" if callable(one.default) or one.default in (None, False, (), []) else f"`{one.default}`"
    words = f"{one.help or ''} (`{one.envvar}`)" if isinstance(one.envvar, str) else one.help or ""
    takes = _takes(one.type_descriptor.annotation)
    return f"| {names} | {cell(takes)} | {cell('required' if one.required else default)} | {cell(words)} |"


def _takes(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _takes(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return " or ".join(_takes(one) for one in get_args(annotation) if one is not NoneType)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin is list:
        return f"{_takes(get_args(annotation)[0])}, may be repeated"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{value.value}`" for value in annotation)
    return _KINDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
