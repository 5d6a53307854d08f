"""One page for each file of ssl_core/objectives, from the file alone.

Its module's docstring is the explanation: a title, how it works, a paragraph that begins with `Loss`, one that begins
with `When to use it:`. The class says the rest: paper, modalities, hyperparameters with their bounds.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path

from docs._generate import measured
from docs._generate.schema import fields
from ssl_core.objectives import OBJECTIVES, Objective

HEADINGS = {"Loss": "The loss", "When to use it:": "When to use it"}
"""How a paragraph of the docstring begins -> its heading on the page."""


def pages(root: Path) -> dict[str, str]:
    """The table of all objectives and a page for each."""
    results = root / "benchmarks" / "results"
    made = {f"objectives/{name}.md": page(kind, results) for name, kind in OBJECTIVES.items()}
    return {"objectives/index.md": _index(), **made}


def page(kind: type[Objective], results: Path) -> str:
    """The page of one objective."""
    name = kind.model_fields["name"].default
    title, *paragraphs = explanation(kind)
    example = {"type": "pretrain", "dataset": "ds_01jd3w8m6k", "objective": {"name": name}}
    table = fields(kind.model_json_schema(), leave_out=("name",)) or "None."
    return "\n\n".join(
        [
            f"# {name}",
            f"**{title}** {_linked(kind.paper)}",
            *_with_headings(paragraphs),
            "## In this implementation",
            inspect.getdoc(kind) or "",
            _facts(kind),
            "## Hyperparameters",
            table,
            "## As a job",
            f"```json\n{json.dumps(example)}\n```",
            "Everything left out has the value of the table; `POST /v1/jobs` answers with the resolved spec.",
            "## Measured here",
            measured.of_objective(name, results) or "Not yet: `benchmarks/results` has no run of this objective.",
        ]
    )


def explanation(kind: type[Objective]) -> list[str]:
    """Paragraphs of the module's docstring, the first a title; what only concerns importing it is left out."""
    written = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "")
    return written.replace(" Imports without torch.", "").split("\n\n")


def _with_headings(paragraphs: list[str]) -> list[str]:
    return [part for paragraph in paragraphs for part in _with_heading(paragraph)]


def _with_heading(paragraph: str) -> list[str]:
    begins = next((words for words in HEADINGS if paragraph.startswith(words)), None)
    if begins is None:
        return [paragraph]
    said = paragraph.removeprefix(begins).strip() if begins.endswith(":") else paragraph
    return [f"## {HEADINGS[begins]}", said[:1].upper() + said[1:]]


def _index() -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {', '.join(kind.modalities)} | {explanation(kind)[0]} |"
        for name, kind in OBJECTIVES.items()
    ]
    return "\n".join(
        [
            "# Objectives",
            "",
            "What an encoder learns from data without labels. Each is one file, "
            "tested against an independent implementation or its paper's formula, gradients included. "
            "[How to choose](../how-to/choose-an-objective.md).",
            "",
            "| name | data | |",
            "|---|---|---|",
            *rows,
        ]
    )


def _facts(kind: type[Objective]) -> str:
    answers = {"continuation": "texts go on", "fill": "masks are filled in", None: "nothing without a task"}
    rows = {
        "data": ", ".join(kind.modalities),
        "views of a sample": ", ".join(kind.views),
        "encoders": ", ".join(kind.encoders) or "any that reads the data",
        "its model answers at `/v1/predictions`": answers[kind.completes],
        "lower validation loss = better encoder": "yes" if kind.comparable_loss else "no, its target moves",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {words} | {value} |" for words, value in rows.items())])


def _linked(text: str) -> str:
    return re.sub(r"(https?://[^\s;]+)", r"<\1>", text)
