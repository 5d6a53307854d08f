"""What benchmarks/results holds about an objective, as tables. Nothing is computed but means over seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

ARMS = {
    "pretrained": "pretrained",
    "probe": "linear probe",
    "self_training": "self-training",
    "knn": "nearest neighbours",
    "lora": "low-rank adapters",
    "full": "fine-tuned",
    "pretrained_full": "fine-tuned",
}


def of_objective(name: str, results: Path) -> str:
    """Markdown with every measurement of the objective; an empty string where there is none.

    Args:
        name: of the objective.
        results: the folder `benchmarks/results`.
    """
    parts = []
    rows = [row for file in sorted(results.glob("few_labels_*.json")) for row in _few_labels(name, file)]
    if rows:
        head = ["| data | pretraining | labels | score | pretrained | from scratch | classical | file |"]
        parts.append("\n".join([*head, "|---|---|---|---|---|---|---|---|", *rows]))
    for file in sorted(results.glob("objectives_*.md")):
        parts += _short_runs(name, file)
    return "\n\n".join(parts)


def _few_labels(name: str, file: Path) -> Iterator[str]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if found.get("objective") != name:
        return
    for row in found["rows"]:
        scores: dict[str, list[float]] = row["scores"]
        ours = ", ".join(f"{ARMS[arm]} **{_told(mean(scores[arm]))}**" for arm in ARMS if scores.get(arm))
        scratch = _told(mean(scores["scratch"])) if scores.get("scratch") else "not measured"
        baseline = row.get("baseline_score")
        yield (
            f"| {found['set']} | {found['pretraining_minutes']:.0f} min | {row['labels_per_class']} "
            f"| {found.get('metric', 'accuracy')} | {ours or 'not measured'} | {scratch} "
            f"| {'not measured' if baseline is None else _told(baseline)} | `{file.name}` |"
        )


def _told(score: float) -> str:
    return f"{score:.3f}" if score <= 1 else f"{score:.1f}"


def _short_runs(name: str, file: Path) -> Iterator[str]:
    """The row of this objective, and of what it is compared with, in each table whose rows are objectives."""
    title, table = "", []
    for line in [*file.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("#"):
            title = line.lstrip("# ")
        if line.startswith("|"):
            table.append(line)
        elif table:
            ours = [row for row in table[2:] if re.match(rf"\| `{re.escape(name)}`", row)]
            others = [row for row in table[2:] if not row.startswith("| `")]
            if ours:
                yield "\n".join([f"{title} (`{file.name}`):", "", *table[:2], *ours, *others])
            table = []
