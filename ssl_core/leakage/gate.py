"""Before a run trains or scores: what it is scored on must not be among what it learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl_core.context import RunContext
from ssl_core.data import rows
from ssl_core.data.cache import kept
from ssl_core.durable import write_json
from ssl_core.errors import DataError
from ssl_core.evaluation_spec import EvaluateSpec
from ssl_core.leakage.join import pairs
from ssl_core.leakage.signatures import contents, digest, signatures
from ssl_core.spec import BaselineSpec, FinetuneSpec, RunOrder

VERSION = 1
"""Of how pairs are found; kept findings of another version are not used."""
TOLD = 20
"""Leaks that the message itself names."""
LISTED = 10_000
"""Leaks that the list names."""


@dataclass(frozen=True)
class Side:
    """A dataset and what it is to the run: `training`, `validation`, `pretraining`; or the field that names it."""

    role: str
    dataset: str


@dataclass(frozen=True)
class Leak:
    """A row to be scored, and the row that a model learns from which is the same or nearly.

    `row`, `known_row` count from 0 in their datasets; `source`, `known_source` are `file:row` of the uploads.
    """

    field: str
    row: int
    source: str
    label: str | None
    role: str
    dataset: str
    known_row: int
    known_source: str
    known_label: str | None
    similarity: float
    exact: bool

    def __str__(self) -> str:
        how = "the same as" if self.exact else f"a near duplicate ({self.similarity:.2f}) of"
        told = "" if self.label is None or self.known_label in (None, self.label) else ", with another label"
        other = f"row {self.known_row} ({self.known_source}) of the {self.role} data"
        return f"row {self.row} ({self.source}) is {how} {other}{told}"


def before_finetune(order: RunOrder, spec: FinetuneSpec, context: RunContext) -> None:
    """Validation data against training data; test data against both and what the base model has seen.

    Labelled rows are usually in the pool too, so what the base model has seen says nothing of the former two.
    """
    training = Side("training", spec.dataset)
    known = [training]
    if spec.validation_dataset is not None:
        validation = Side("validation_dataset", spec.validation_dataset)
        check(order, validation, [training], spec.allow_leakage, context)
        known.append(Side("validation", spec.validation_dataset))
    if spec.test_dataset is not None:
        known += [Side("pretraining", spec.pool)] if spec.pool is not None else []
        check(order, Side("test_dataset", spec.test_dataset), known, spec.allow_leakage, context)


def before_evaluation(order: RunOrder, spec: EvaluateSpec, context: RunContext) -> None:
    """Rows to be scored against what the model learned from, as far as that is still here."""
    named = {"training": spec.training_dataset, "pretraining": spec.pool}
    known = [Side(role, dataset) for role, dataset in named.items() if dataset is not None]
    check(order, Side("dataset", spec.dataset), known, spec.allow_leakage, context)


def before_baseline(order: RunOrder, spec: BaselineSpec, context: RunContext) -> None:
    """Test data against training data and the pool."""
    known = [Side("training", spec.dataset)]
    known += [Side("pretraining", spec.pool)] if spec.pool is not None else []
    check(order, Side("test_dataset", spec.test_dataset), known, spec.allow_leakage, context)


def check(order: RunOrder, held: Side, known: Sequence[Side], allow: bool, context: RunContext) -> list[Leak]:
    """Look for rows of `held` in each of `known`; every leak goes into the sample `leakage_<field>`.

    Args:
        order: where the datasets are, and the cache.
        held: what is scored; its `role` is the field of the spec.
        known: what the model learns from, or has.
        allow: leaks are a warning and no error.
        context: the run.

    Raises:
        DataError: `leakage`, naming rows on both sides; `invalid_dataset`.
        Stopped: asked to leave meanwhile.
    """
    found: list[Leak] = []
    for side in known:
        if held.dataset in order.datasets and side.dataset in order.datasets:
            found += _leaks(order, held, side, context)
    if not found:
        return found
    count = len({leak.row for leak in found})
    _list(held.role, found, count, context)
    total = int(rows.profile(Path(order.datasets[held.dataset]))["rows"])
    told = "; ".join(str(leak) for leak in found[:TOLD])
    more = f"; and {len(found) - TOLD:,} more" if len(found) > TOLD else ""
    text = f"{count:,} of {total:,} rows of {held.role} are among what the model learns from: {told}{more}"
    listed = f"The whole list is the sample leakage_{held.role}."
    if not allow:
        advice = "Take these rows out, or set allow_leakage to true to go on with them."
        raise DataError("leakage", _short(text, f". {listed} {advice}"), held.role)
    context.emit("message", level="warning", code="leakage", message=_short(text, f"; allow_leakage is set. {listed}"))
    return found


def _short(text: str, end: str) -> str:
    """Within what a message may have."""
    most = 3900 - len(end)
    return (text if len(text) <= most else text[: most - 1] + "…") + end


def _leaks(order: RunOrder, held: Side, known: Side, context: RunContext) -> list[Leak]:
    """From the cache, or looked for now."""
    mine, theirs = Path(order.datasets[held.dataset]), Path(order.datasets[known.dataset])
    cache = Path(order.cache)

    def make(out: Path) -> None:
        found = _described(mine, theirs, cache, context)
        out.mkdir(parents=True)
        write_json(out / "pairs.json", found)

    folder = kept(cache, f"leaks-{VERSION}-{digest(mine)[:32]}-{digest(theirs)[:32]}", make)
    told: list[dict[str, Any]] = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    return [Leak(field=held.role, role=known.role, dataset=known.dataset, **each) for each in told]


def _described(mine: Path, theirs: Path, cache: Path, context: RunContext) -> list[dict[str, Any]]:
    """The pairs of two datasets, with what a person needs to find the rows."""
    if rows.profile(mine)["modality"] != rows.profile(theirs)["modality"]:
        return []
    found = pairs(signatures(mine, cache, context), signatures(theirs, cache, context))
    ours = contents(mine, {pair.held for pair in found})
    others = contents(theirs, {pair.known for pair in found})
    return [
        {
            "row": pair.held, "source": ours[pair.held]["source"], "label": ours[pair.held]["label"],
            "known_row": pair.known, "known_source": others[pair.known]["source"],
            "known_label": others[pair.known]["label"], "similarity": pair.similarity, "exact": pair.exact,
        }
        for pair in found
    ]  # fmt: skip


def _list(field: str, found: list[Leak], count: int, context: RunContext) -> None:
    """Every leak as JSON, to be downloaded."""
    folder = context.workdir / "samples"
    folder.mkdir(exist_ok=True)
    path = f"samples/leakage_{field}.json"
    write_json(context.workdir / path, {"rows": count, "leaks": [asdict(leak) for leak in found[:LISTED]]})
    caption = f"rows of {field} that the model learns from too, and where"
    context.emit("sample", step=0, name=f"leakage_{field}", path=path, media_type="application/json", caption=caption)
