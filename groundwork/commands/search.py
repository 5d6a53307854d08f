"""`groundwork search`: the rows of an embedded dataset that are nearest to a text, a picture, a sound, or a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from groundwork.commands import completion, draw
from groundwork.commands.command import Json, Terminal, command
from groundwork.commands.failures import Failure
from groundwork.commands.items import media

SLOW = 300.0
Dataset = Annotated[str, completion.dataset_argument()]
Limit = Annotated[int, typer.Option(min=1, max=100, help="so many rows")]


def attach(group: typer.Typer) -> None:
    """`search` under `datasets`."""
    command(group, "search")(search)


def attach_top(app: typer.Typer) -> None:
    """`search`."""
    command(app, "search", "Ask a model")(search)


def search(
    terminal: Terminal,
    dataset: Dataset,
    query: Annotated[str | None, typer.Argument(help="a text, or of proteins a chain")] = None,
    *,
    image: Annotated[Path | None, typer.Option(help="a picture to look for")] = None,
    audio: Annotated[Path | None, typer.Option(help="a sound to look for")] = None,
    row: Annotated[int | None, typer.Option(min=0, help="a row of the dataset to look for, from 0")] = None,
    model: Annotated[str | None, typer.Option(help="whose vectors", autocompletion=completion.models)] = None,
    label: Annotated[str | None, typer.Option(help="only rows with this label")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="look at every row, though there is an index")] = False,
    limit: Limit = 10,
) -> None:
    """The rows that are nearest to a text, picture, sound or row. Embed first: `groundwork embed MODEL --dataset`."""
    server = terminal.server
    asked = [each for each in (query, image, audio, row) if each is not None]
    if len(asked) != 1:
        raise Failure(f"give one thing to look for; {len(asked)} are given", "a QUERY, --image, --audio or --row")
    if query is not None:
        protein = server.get(f"/datasets/{dataset}")["modality"] == "protein"
        wanted: Any = {"protein": query} if protein else query
    elif row is not None:
        wanted = {"dataset": dataset, "row": row}
    else:
        wanted = media(Path(image or audio or ""))
    body: Json = {"query": wanted, "limit": limit, "exact": exact}
    body |= {"model": model} if model else {}
    body |= {"filter": {"label": label}} if label is not None else {}
    found = server.post(f"/datasets/{dataset}/search", body, SLOW)
    lines = ((each["row"], draw.number(each["score"]), each["label"], _shown(each)) for each in found["data"])
    columns = ("row>", "score>", "label", "what is in it")
    terminal.show(found, lambda: [draw.table(columns, lines, "no row is near"), draw.plain(f"\n{_how(found)}")])


def _shown(row: Json) -> str:
    preview = row["preview"] or {}
    for name in ("text", "protein"):
        if name in preview:
            return draw.clip(preview[name], 90)
    return row["source"] or draw.clip(json.dumps(preview, ensure_ascii=False), 90)


def _how(found: Json) -> str:
    index = found["index"]
    recall = f", which finds {index['recall']:.0%} of the nearest ten" if index["recall"] is not None else ""
    way = "every row looked at" if index["kind"] == "exact" else f"by an index{recall}"
    return f"{draw.count(index['rows'])} rows embedded by {found['model']}, {way}"
