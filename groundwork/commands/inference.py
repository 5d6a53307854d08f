"""`groundwork embed` and `groundwork predict`: ask a model about a few things at once, or about a whole dataset."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from groundwork.commands import completion, draw, moving, watch
from groundwork.commands.command import Json, Terminal, command
from groundwork.commands.failures import Failure
from groundwork.commands.items import Item, batches, gather

SLOW = 300.0
"""Seconds for an answer of a model: the first one loads its weights."""
Model = Annotated[str, completion.model_argument()]
Texts = Annotated[list[str] | None, typer.Argument(help="what to ask about", metavar="TEXT…")]
Files = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", help="texts, one a line (- = standard input), items as .jsonl, a picture, a sound"),
]
Dataset = Annotated[
    str | None, typer.Option(help="every row of it, as a job; needs -o", autocompletion=completion.datasets)
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="write JSON lines there; of --dataset its file")]


def attach_top(app: typer.Typer) -> None:
    """Both."""
    command(app, "embed", "Ask a model")(embed)
    command(app, "predict", "Ask a model")(predict)


def embed(
    terminal: Terminal,
    model: Model,
    texts: Texts = None,
    *,
    file: Files = None,
    dataset: Dataset = None,
    output: Output = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="keep the first so many numbers, length 1")] = None,
    pooling: Annotated[str | None, typer.Option(help="mean, cls or max")] = None,
    precision: Annotated[str | None, typer.Option(help="int8: faster on a CPU, a little coarser")] = None,
) -> int:
    """Vectors of texts, pictures, sounds, or of every row of a dataset."""
    options = {name: value for name, value in (("dimensions", dimensions), ("pooling", pooling)) if value is not None}
    if dataset is not None:
        if dimensions is not None:
            raise Failure("--dimensions does not go with --dataset", "the file holds the whole vectors; cut them there")
        if precision is not None:
            raise Failure("--precision does not go with --dataset", "leave it out; such a job computes in fp32")
        return _over_rows(terminal, {"type": "embed", "model": model, "dataset": dataset, **options}, output)
    items = _items(terminal, model, texts, file)
    body = {"model": model, "encoding_format": "float", **options}
    answer = _ask(terminal, "/embeddings", body if precision is None else {**body, "precision": precision}, items)
    if output is not None:
        return _write(terminal, output, answer["data"])
    lines = ((item.shown, *_vector(row["embedding"])) for item, row in zip(items, answer["data"], strict=True))
    columns = ("input", "numbers>", "length>", "first of them")
    terminal.show(answer, lambda: [draw.table(columns, lines)])
    return 0


def predict(
    terminal: Terminal,
    model: Model,
    texts: Texts = None,
    *,
    file: Files = None,
    dataset: Dataset = None,
    output: Output = None,
    max_tokens: Annotated[int | None, typer.Option(help="a model that writes: so many tokens at most")] = None,
    temperature: Annotated[float | None, typer.Option(help="a model that writes: 0 = the likeliest word")] = None,
    seed: Annotated[int | None, typer.Option(help="of what is drawn")] = None,
) -> int:
    """A fine-tuned model's answers; of a language model, how it goes on or fills in [MASK]."""
    if dataset is not None:
        return _over_rows(terminal, {"type": "predict", "model": model, "dataset": dataset}, output)
    sampling = {"max_tokens": max_tokens, "temperature": temperature}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    body: Json = {"model": model, **({"sampling": sampling} if sampling else {})}
    items = _items(terminal, model, texts, file)
    answer = _ask(terminal, "/predictions", {**body, **({} if seed is None else {"seed": seed})}, items)
    if output is not None:
        return _write(terminal, output, answer["data"])
    lines = ((item.shown, *_answered(row)) for item, row in zip(items, answer["data"], strict=True))
    terminal.show(answer, lambda: [draw.table(("input", "answer", "likelihood"), lines)])
    return 0


def _items(terminal: Terminal, model: str, texts: list[str] | None, files: list[str] | None) -> list[Item]:
    modality = terminal.server.get(f"/models/{model}")["modality"]
    return gather(texts or [], files or [], modality)


def _ask(terminal: Terminal, path: str, body: Json, items: list[Item]) -> Json:
    whole: Json = {}
    for batch in batches(items):
        # Input n draws with seed + n, wherever a request ends.
        drawn = {"seed": body["seed"] + len(whole["data"])} if whole and "seed" in body else {}
        answer = terminal.server.post(path, {**body, **drawn, "input": [item.sent for item in batch]}, SLOW)
        if not whole:
            whole = answer
            continue
        for row in answer["data"]:
            whole["data"].append({**row, "index": len(whole["data"])})
        whole["usage"] = {name: whole["usage"][name] + count for name, count in answer["usage"].items()}
    return whole


def _over_rows(terminal: Terminal, spec: Json, output: Path | None) -> int:
    """A job over every row, then its file."""
    if output is None:
        raise Failure("--dataset needs a place for the answers", "give -o FILE")
    if not output.parent.is_dir():
        raise Failure(f"there is no folder {output.parent}", "make it, or choose another with -o")
    job = terminal.server.post("/jobs", spec)
    terminal.note(f"{job['type']} job {job['id']}")
    ended = moving.until_ended(terminal, job["id"])
    if ended["status"] != "succeeded":
        raise watch.failure(ended)
    made = terminal.server.get(f"/jobs/{job['id']}/files")["data"]
    file = next(each for each in made if each["path"].endswith((".parquet", ".jsonl")))
    goal = output / file["path"] if output.is_dir() else output
    done = moving.quietly(terminal, file["content_url"].removeprefix("/v1"), goal)
    told = {"job": job["id"], "path": str(goal), "bytes": done}
    terminal.show(told, lambda: [draw.plain(f"{goal}   ({draw.size(done)})")])
    return 0


def _write(terminal: Terminal, output: Path, rows: list[Json]) -> int:
    try:
        output.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise Failure(f"{output} cannot be written: {error.strerror or error}", "choose another with -o") from error
    terminal.show({"path": str(output), "rows": len(rows)}, lambda: [draw.plain(f"{output}   ({len(rows):,} rows)")])
    return 0


def _vector(vector: list[float]) -> tuple[int, str, str]:
    length = math.sqrt(math.fsum(value * value for value in vector))
    head = " ".join(f"{value:+.3f}" for value in vector[:4])
    return len(vector), draw.number(length), f"{head} …" if len(vector) > 4 else head


def _answered(row: Json) -> tuple[Any, str]:
    """An answer in words, and how sure the model is of it where it says so."""
    sure = row.get("probabilities") or {}
    likeliest = sorted(sure.items(), key=lambda pair: -pair[1])[:3]
    words = ", ".join(f"{name} {share:.0%}" for name, share in likeliest)
    for name in ("label", "labels", "text", "translation", "number"):
        if name in row:
            shown = row[name]
            return (draw.clip(shown, 200) if isinstance(shown, str) else shown), words
    rest = {name: value for name, value in row.items() if name not in ("object", "index", "probabilities")}
    return draw.clip(json.dumps(rest, ensure_ascii=False), 200), words
