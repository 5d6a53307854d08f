"""The results as a file to read and one to compare with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "results"
TARGETS = {
    "L1": "250 polls/s: p50 < 15 ms, p99 < 150 ms; ceiling >= 400/s (SQLite 250)",
    "L2": "10,000 points/s (SQLite 5,000): p99 < 300 ms, nothing lost or doubled",
    "L3": "16 uploads: >= 70 % of sha256 + write, RSS growth < 50 MB, polls p99 < 200 ms",
    "L4": "32 clients, one item each: p99 < 250 ms, CPU <= 20 % over the model alone, then 503",
    "L5": "any page p99 < 100 ms, claim p99 < 50 ms, 100k creates <= 10 min, passes < 5 s, fair, by index",
    "L6": "500 heartbeats per 10 s on L1 + L2: p99 < 200 ms, no lease lost",
    "L7": "200 idle streams: < 20 KB each, polls unaffected",
    "L8": "overload 3x: goodput >= 80 % of the peak, rest 429/503, recovery < 10 s",
    "L9": "soak: RSS < 5 MB/h; files, threads, connections flat",
    "L10": "start < 3 s, idle RSS: API < 150 MB, worker < 120 MB",
}


def write(name: str, about: dict[str, Any], rows: dict[str, dict[str, Any]]) -> Path:
    """`<name>.json` and `<name>.md`: rows of other databases and rows not run this time stay as they were."""
    path = FOLDER / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    mine = known.setdefault(about["database"], {})
    mine.update({row: {"about": about, **found} for row, found in rows.items()})
    path.write_text(json.dumps(known, indent=1) + "\n")
    made = "Made by `make bench-api`; every figure is in `api.json`. CPU is of the API's process."
    lines = ["# The API under load", "", made, ""]
    for database, found in sorted(known.items()):
        lines += [f"## {database}", "", "| row | target | measured | met | when |", "|---|---|---|---|---|"]
        for row in sorted(found, key=lambda each: int(each[1:])):
            one = found[row]
            when = f"{one['about']['date']}, {one['about']['jobs']} jobs, load {one['about']['load']}"
            met = "yes" if one["met"] else "no"
            lines.append(f"| {row} | {TARGETS[row]} | {_short(one)} | {met} | {when} |")
        about = next(iter(found.values()))["about"]
        lines += ["", f"{about['device']}; cores of server and generator: {about['cores']}. {about['note']}", ""]
    path.with_suffix(".md").write_text("\n".join(lines))
    return path


def _short(found: dict[str, Any]) -> str:
    """The flat figures, and of the loads their rate, p99 and cost."""
    words = []
    for name, value in found.items():
        if name in ("about", "met", "statuses"):
            continue
        if isinstance(value, dict) and "p99_ms" in value:
            cost = f", {value['cpu_ms']} CPU-ms" if "cpu_ms" in value else ""
            words.append(f"{name} {value['per_second']:g}/s p99 {value['p99_ms']:g} ms{cost}")
        elif name == "runs":
            words.append("runs p99 " + ", ".join(f"{run['p99_ms']:g}" for run in value) + " ms")
        elif name == "floor":
            words.append("floor CPU-ms " + ", ".join(f"{each} {load['cpu_ms']}" for each, load in value.items()))
        elif isinstance(value, dict):
            words.append(f"{name} " + ", ".join(f"{each} {one}" for each, one in value.items()))
        else:
            words.append(f"{name} {value}")
    return "; ".join(words).replace("_", " ")
