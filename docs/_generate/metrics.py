"""Metrics for Prometheus, from the collectors that the processes register."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docs._generate.schema import cell

_ROOT = Path(__file__).parents[2]
_KINDS = {"Counter": "counter", "Histogram": "histogram", "Gauge": "gauge", "GaugeMetricFamily": "gauge"}
_SOURCES = {"API, told by every process alike": ("app/jobs/measures.py", "app/datasets/measures.py", "app/health.py"),
            "API, of the process alone": ("app/telemetry.py",),
            "Inference": ("worker/inference_metrics.py",)}  # fmt: skip


def pages() -> dict[str, str]:
    """One page."""
    parts = [
        "# Metrics",
        "`/metrics` of the API and of the inference process, in Prometheus' text format. Counters end in `_total`. "
        "Labels are route templates, states and queues: never ids. What to watch is told in "
        "[Operations](../operations.md#metrics-and-logs); the series of a training run in "
        "[Reading a run](../explanation/reading-a-run.md).",
    ]
    for title, files in _SOURCES.items():
        found = [one for file in files for one in declared(_ROOT / file)]
        rows = [f"| `{name}` | {kind} | {cell(words)} |" for name, kind, words in found]
        if title == "Inference":
            rows += [f"| `groundwork_inference_{name}` | gauge | {words} |" for name, words in _gauges()]
        parts += [f"## {title}", "\n".join(["| metric | kind | meaning |", "|---|---|---|", *rows])]
    return {"reference/metrics.md": "\n\n".join(parts)}


def declared(file: Path) -> Iterator[tuple[str, str, str]]:
    """(name, kind, meaning) of each metric that a module makes with words of its own."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _KINDS:
            continue
        words = [str(part.value) for part in node.args[:2] if isinstance(part, ast.Constant)]
        if len(words) == 2:
            ending = "_total" if node.func.id == "Counter" else ""
            yield f"{words[0]}{ending}", _KINDS[node.func.id], words[1]


def _gauges() -> Iterator[tuple[str, str]]:
    """What the inference process tells of itself when it is asked, with the words that its metrics give it."""
    tree = ast.parse((_ROOT / "worker" / "inference.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Dict):
            continue
        if ast.unparse(node.targets[0]) == "gauges":
            names = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            yield from ((str(name), str(name).replace("_", " ").capitalize()) for name in names)
