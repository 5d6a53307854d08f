"""What is odd about labelled rows: classes of very different size, rows with nothing in them, twins of two labels.

Warnings, never errors: whoever made the data may have wanted it so. What is found is kept in the cache for each
dataset, and costs what the search for leaks reads anyway and a join of the dataset with itself.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ssl_core.context import RunContext
from ssl_core.data import rows
from ssl_core.data.cache import kept
from ssl_core.durable import write_json
from ssl_core.leakage.join import pairs
from ssl_core.leakage.signatures import contents, digest, signatures
from ssl_core.spec import RunOrder
from ssl_core.tasks.base import Task

VERSION = 1
IMBALANCE = 10.0
"""A largest class of so many times the rows of the smallest is told."""
TOLD = 10
"""Rows that a message names."""


class Quality(NamedTuple):
    """What was found in a dataset.

    Attributes:
        flat: rows with nothing in them (no words, silence, one colour): number and source of the first, and how many.
        twins: pairs of rows that are the same, or nearly, with two labels: of each row number, source and label.
    """

    flat: list[tuple[int, str]]
    flat_rows: int
    twins: list[list[tuple[int, str, str]]]
    twin_pairs: int


def look(order: RunOrder, dataset: str, task: Task, context: RunContext, told: bool = True) -> dict[str, float]:
    """Warn of a dataset's labelled rows; the numbers, `data/flat_rows`, `data/twins` and `data/imbalance`.

    Args:
        order: where the dataset is, and the cache.
        dataset: its id.
        task: what is learned from it. Twins are looked for where rows have class labels.
        context: the run.
        told: whether to say it, too.

    Raises:
        DataError: `invalid_dataset`.
        Stopped: asked to leave meanwhile.
    """
    folder = Path(order.datasets[dataset])
    found = _found(folder, Path(order.cache), context)
    counts = _counts(folder, task)
    ratio = max(counts.values()) / max(1, min(counts.values())) if len(counts) > 1 else 1.0
    labelled = task.target == "label"
    if told:
        for code, message in _messages(found, counts if ratio >= IMBALANCE else {}, labelled):
            context.emit("message", level="warning", code=code, message=message)
    numbers = {"data/flat_rows": float(found.flat_rows), "data/imbalance": round(ratio, 4)}
    return numbers | ({"data/twins": float(found.twin_pairs)} if labelled else {})


def _counts(folder: Path, task: Task) -> dict[str, int]:
    profile = rows.profile(folder)
    if task.target == "label":
        return dict(profile.get("class_counts", {}))
    return dict(profile.get("targets", {}).get(task.target, {}).get("class_counts", {}))


def _messages(found: Quality, counts: dict[str, int], labelled: bool) -> Iterator[tuple[str, str]]:
    if counts:
        most, least = (pick(counts, key=lambda name: counts[name]) for pick in (max, min))
        text = f"class {most!r} has {counts[most]:,} rows and class {least!r} {counts[least]:,}"
        yield "class_imbalance", f"{text}; where the task has class_weights, `balanced` makes up for it"
    if found.flat_rows:
        named = ", ".join(f"row {row} ({source})" for row, source in found.flat[:TOLD])
        more = f" and {found.flat_rows - TOLD:,} more" if found.flat_rows > TOLD else ""
        yield "flat_rows", f"{found.flat_rows:,} rows have nothing in them that differs: {named}{more}"
    if labelled and found.twin_pairs:
        both = [[f"row {row} ({source}, {label!r})" for row, source, label in pair] for pair in found.twins[:TOLD]]
        named = "; ".join(" and ".join(pair) for pair in both)
        more = f"; and {found.twin_pairs - TOLD:,} more pairs" if found.twin_pairs > TOLD else ""
        yield "mislabelled_twins", f"{found.twin_pairs:,} pairs of rows are alike and have two labels: {named}{more}"


def _found(folder: Path, cache: Path, context: RunContext) -> Quality:
    """From the cache, or looked for now."""

    def make(out: Path) -> None:
        made = _examined(folder, cache, context)
        out.mkdir(parents=True)
        write_json(out / "quality.json", made._asdict())

    place = kept(cache, f"quality-{VERSION}-{digest(folder)}", make)
    told: dict[str, Any] = json.loads((place / "quality.json").read_text(encoding="utf-8"))
    return Quality(**told)


def _examined(folder: Path, cache: Path, context: RunContext) -> Quality:
    import numpy as np

    seen = signatures(folder, cache, context)
    labels = [label for batch in rows.batches(folder, ["label"], 8192) for label in batch["label"]]
    flat = np.flatnonzero(seen.flat).tolist()
    alike = {(pair.known, pair.held) for pair in pairs(seen, seen)} | set(_same(seen.exact))
    twins = sorted(
        pair for pair in alike
        if None not in (labels[pair[0]], labels[pair[1]]) and labels[pair[0]] != labels[pair[1]]
        and not (seen.flat[pair[0]] or seen.flat[pair[1]])
    )  # fmt: skip
    shown = contents(folder, {row for pair in twins[:TOLD] for row in pair} | set(flat[:TOLD]))
    return Quality(
        [(row, shown[row]["source"]) for row in flat[:TOLD]], len(flat),
        [[(row, shown[row]["source"], shown[row]["label"]) for row in pair] for pair in twins[:TOLD]], len(twins),
    )  # fmt: skip


def _same(exact: Any) -> Iterator[tuple[int, int]]:
    """Each row that is exactly an earlier one, beside the first of them and beside the one before it."""
    places: dict[int, list[int]] = defaultdict(list)
    for row, key in enumerate(exact.tolist()):
        places[key].append(row)
    for same in places.values():
        for at in range(1, len(same)):
            yield same[0], same[at]
            yield same[at - 1], same[at]
