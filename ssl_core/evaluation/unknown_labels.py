"""Labels that a model has never seen: no answer could be right, so scores leave them out, and the run says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_core import distributed
from ssl_core.context import RunContext
from ssl_core.data import rows
from ssl_core.durable import write_json
from ssl_core.targets import TARGETS
from ssl_core.tasks.base import Task

TOLD = 20
"""Rows that the message names."""
LISTED = 10_000
"""Rows that the list names."""


def tell(dataset: Path, task: Task, classes: list[str], field: str, context: RunContext) -> int:
    """Warn of a dataset's rows with labels that are none of `classes`; their number.

    The message `unknown_labels` names the first, the sample `unknown_labels_<field>` all.

    Args:
        dataset: its canonical folder.
        task: what is learned from its rows.
        classes: the model's; empty = the task has none.
        field: of the spec, which names the dataset.
        context: the run.
    """
    if not classes or not _own(dataset, task) - set(classes):
        return 0
    found = _found(dataset, task, set(classes))
    if not distributed.is_main():
        return len(found)
    context.workdir.joinpath("samples").mkdir(exist_ok=True)
    path = f"samples/unknown_labels_{field}.json"
    write_json(context.workdir / path, {"rows": len(found), "listed": found[:LISTED]})
    caption = f"rows of {field} with labels that the model has not learned"
    context.emit(
        "sample", step=0, name=f"unknown_labels_{field}", path=path, media_type="application/json", caption=caption
    )
    named = "; ".join(f"row {each['row']} ({each['source']}): {', '.join(each['labels'])}" for each in found[:TOLD])
    more = f"; and {len(found) - TOLD:,} more" if len(found) > TOLD else ""
    left = "they are left out" if task.target == "label" else "these labels are left out"
    text = f"{len(found):,} rows of {field} have labels that the model has not learned, {left}: {named[:3000]}{more}"
    context.emit("message", level="warning", code="unknown_labels", message=text)
    return len(found)


def _own(dataset: Path, task: Task) -> set[str]:
    """The labels of the dataset, by its profile."""
    profile = rows.profile(dataset)
    held = profile if task.target == "label" else profile.get("targets", {}).get(task.target, {})
    return set(held.get("classes", ()))


def _found(dataset: Path, task: Task, classes: set[str]) -> list[dict[str, Any]]:
    """Number (from 0), source and unknown labels of each such row."""
    found, row = [], 0
    for batch in rows.batches(dataset, [task.target, "source"], rows=8192):
        for value, source in zip(batch[task.target], batch["source"], strict=True):
            named = {value} - {None} if task.target == "label" else TARGETS[task.target].named(value)
            if unknown := sorted(named - classes):
                found.append({"row": row, "source": source, "labels": unknown[:TOLD]})
            row += 1
    return found
